# Small assembly payloads with expected state, on the translator (with and without mirrored address spaces), on the interpreter and on both in lock-step; what they cover: tests/payloads/README.md
"${1%/*}/../payloads/run" --caisson "$CAISSON" --engine translator --engine off-patience --engine interpreter --engine lockstep >payloads.out 2>&1 ||
  die "$(tail -n 1 payloads.out)"
