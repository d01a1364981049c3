# A script language at work: hashes, strings, regular expressions, calls. Prints a checksum.
my %count;
my $state = 1;
my $text = '';
sub word { my ($number) = @_; return sprintf('w%d', $number % 997); }
for my $i (1 .. 50000) {
  $state = ($state * 1103515245 + 12345) % 2147483648;
  my $word = word($state);
  $count{$word}++;
  $text .= "$word " if $i % 4 == 0;
}
my $sum = 0;
$sum = ($sum * 31 + length($1)) % 500003 while $text =~ /w(\d+) /g;
$sum = ($sum * 31 + $count{$_}) % 500003 for sort keys %count;
print "$sum\n";
