# For installer and installer-i386, which make a folder of build/guests/ from Debian's mirror. They set $folder and source this:
# it ends them where the folder is there, and else goes on in $folder.new, with $mirror and the functions below.
mkdir -p "${folder%/*}"
exec 9>"$folder.lock" # tests that run at once
flock 9
[ ! -d "$folder" ] || exit 0
new=$folder.new
rm -rf "$new"
mkdir -p "$new"
cd "$new"
stop() { echo "${0##*/}: error: $*" >&2; exit 1; }
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
[ -n "$mirror" ] || stop "apt has no mirror in its sources"
echo "$mirror" >mirror

# try PATH FILE: from the mirror; fails where it has not got it. get: ends the script then.
try() { curl -sfL --retry 3 -m 600 -o "$2" "$mirror/$1"; }
get() { try "$@" || stop "the mirror has no $1"; }
# netboot DEB: linux and initrd.gz out of the package with the network installer
netboot() {
  dpkg-deb --fsys-tarfile "$1" |
    tar -x --strip-components=10 --wildcards '*/text/debian-installer/*/linux' '*/text/debian-installer/*/initrd.gz'
}
# listed UDEB PATH: its paragraph of a list of packages
listed() {
  dpkg-deb -f "$1"
  printf 'Filename: %s\nSize: %s\nSHA256: %s\n\n' "$2" "$(stat -c %s "$1")" "$(sha256sum "$1" | cut -d' ' -f1)"
}
