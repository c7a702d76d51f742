#!/bin/sh
# Makes the Dockerfile's base image without a registry: tools/base-image.sh debian:12.12-slim
# A Debian 12 from a Debian mirror, trimmed as the published slim image is. The certificates and the pip settings of
# this machine go along, so that builds reach PyPI by the same way. Needs root, debootstrap and Docker.

set -eu

image=${1:?name the image, such as debian:12.12-slim}
mirror=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
root=$(mktemp -d)
trap 'rm -rf --one-file-system "$root"' EXIT

debootstrap --variant=minbase --include=ca-certificates bookworm "$root" "$mirror" >&2
printf '%s\n' \
    "deb $mirror bookworm main" \
    "deb $mirror bookworm-updates main" \
    "deb ${mirror}-security bookworm-security main" >"$root/etc/apt/sources.list"
rm -rf "$root/var/lib/apt/lists" "$root/var/cache/apt" "$root/var/log/bootstrap.log" \
    "$root/usr/share/doc" "$root/usr/share/man" "$root/usr/share/locale" "$root/usr/share/info"
mkdir -p "$root/var/lib/apt/lists/partial" "$root/var/cache/apt/archives/partial"
# The authorities that this machine trusts beyond Debian's, one file each, as update-ca-certificates wants them.
bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
awk -v folder="$root/usr/local/share/ca-certificates" '
    /BEGIN CERTIFICATE/ { text = "" }
    { text = text $0 "\n" }
    /END CERTIFICATE/ {
        if (FILENAME == ARGV[1]) known[text] = 1
        else if (!(text in known)) printf "%s", text >(folder "/machine-" ++number ".crt")
    }' "$root/etc/ssl/certs/ca-certificates.crt" "$bundle"
chroot "$root" update-ca-certificates >&2
[ ! -f /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/pip.conf"

tar -C "$root" -c . | docker import --change 'CMD ["bash"]' - "$image" >&2
