# A script language at work: hashes, strings, regular expressions, calls. Prints "perl seconds checksum".
use strict;
use warnings;
use Time::HiRes qw(time);

sub work {
  my %count;
  my $state = 1;
  my $text = '';
  for my $i (1 .. 60000) {
    $state = ($state * 1103515245 + 12345) % 2147483648;
    my $word = sprintf('w%d', $state % 997);
    $count{$word}++;
    $text .= "$word " if $i % 4 == 0;
  }
  my $sum = 0;
  $sum = ($sum * 31 + length($1)) % 1000003 while $text =~ /w(\d+) /g;
  $sum = ($sum * 31 + $count{$_}) % 1000003 for sort keys %count;
  return $sum;
}

my $sum = work();
my @seconds;
for (1 .. 5) {
  my $start = time;
  die unless work() == $sum;
  push @seconds, time - $start;
}
printf "perl %.6f %x\n", (sort { $a <=> $b } @seconds)[2], $sum;
