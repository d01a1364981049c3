# A second serial port: into a file, which a second run goes on with; and at a socket, both ways.
seq 0 199 | sed 's/.*/line & of what the guest says on its second port/' >expected
boot file serial2 --serial2 com2.log
expect_passed
tr -d '\r' <com2.log | cmp - expected || die "the file has something else"
boot again serial2 --serial2 com2.log
expect_passed
[ "$(wc -l <com2.log)" = 400 ] || die "the second run did not go on"
expect_error 1 "$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --serial2 .
expect_error 1 "$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --serial2 no/such/folder

# Perl's base package is on every Debian.
perl -MIO::Socket::UNIX -e '
  my $server = IO::Socket::UNIX->new(Type => SOCK_STREAM, Local => "com2.sock", Listen => 1) or die;
  my $guest = $server->accept();
  open(my $out, ">", "heard");
  for (1 .. 200) { print $out scalar <$guest>; }
  close $out;
  print $guest "good morning\n";
  $guest->flush();
  1 while <$guest>;' &
listener=$!
trap 'kill $listener 2>/dev/null || :' EXIT
i=0
until [ -S com2.sock ]; do i=$((i + 1)); [ $i -lt 100 ] || die "no socket"; sleep 0.1; done
words="answers=1"
boot socket serial2 --serial2 com2.sock
expect_passed
wait $listener
tr -d '\r' <heard | cmp - expected || die "the listener heard something else"
expect_error 1 "$CAISSON" run --kernel "$GUESTS/$flavour/vmlinuz" --serial2 com2.sock
