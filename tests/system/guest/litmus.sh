# Memory ordering, atomicity, and code and page tables that change, on all CPUs; litmus= has the arguments, commas for spaces.
litmus $(word litmus | tr , ' ') || { fail "litmus"; status=1; }
