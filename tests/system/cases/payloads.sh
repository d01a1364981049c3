# Small assembly payloads with expected state, on the translator and on the interpreter; what they cover: tests/payloads/README.md
"${1%/*}/../payloads/run" --caisson "$CAISSON" --engine translator --engine interpreter >payloads.out 2>&1 ||
  die "$(tail -n 1 payloads.out)"
