# OVMF on the kvm engine comes to its shell, and keeps a variable: the case of tests/system. Status 3 is its failure.
. /lab/parts.sh
check "uefi" case_of uefi kvm
[ "$failed" = 0 ] || exit 3
