#!/usr/bin/env bash
# Builds STAND-INS for the images that docker-compose.yml and the Dockerfile name, for machines that cannot pull them.
#
# They are not the official images: a minimal Debian made by debootstrap, with Debian's own packages and entrypoints that
# understand the few settings our compose file uses (entrypoint.sh). They carry the label gristmill.standin=true. Never
# publish them, and remove them before pulling the real ones: docker image ls --filter label=gristmill.standin=true
#
# usage: compose/standins/build.sh      (as root; DOCKER_HOST may name the engine)
set -euo pipefail
cd "$(dirname "$0")/../.."

postgres=${POSTGRES_IMAGE:-postgres:15}
rabbitmq=${RABBITMQ_IMAGE:-rabbitmq:3.10}
redis=${REDIS_IMAGE:-redis:7.0}
base=debian:bookworm-slim
suite=bookworm
cache=target/standins

say() { printf '%s\n' "standins: $*" >&2; }

[ "$(id -u)" = 0 ] || { say "debootstrap and chroot need root"; exit 1; }
for program in debootstrap docker; do
    command -v "$program" >/dev/null || { say "missing: $program (apt-get install debootstrap docker.io)"; exit 1; }
done

# Never shadow an image that somebody pulled.
for image in "$base" "$postgres" "$rabbitmq" "$redis"; do
    if docker image inspect "$image" >/dev/null 2>&1; then
        label=$(docker image inspect --format '{{index .Config.Labels "gristmill.standin"}}' "$image")
        [ "$label" = true ] || { say "$image exists and is not a stand-in: left alone, nothing built"; exit 0; }
    fi
done

mkdir -p "$cache"
# The mirror this machine already uses for its own packages.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -1)

if [ ! -s "$cache/base.tar" ]; then
    say "making a minimal Debian $suite (once; kept in $cache)"
    rm -rf "$cache/base"
    debootstrap --variant=minbase --include=ca-certificates "$suite" "$cache/base" "$mirror" >"$cache/debootstrap.log" 2>&1 \
        || { tail -20 "$cache/debootstrap.log" >&2; exit 1; }
    rm -rf "$cache"/base/var/cache/apt/archives/*.deb "$cache"/base/usr/share/{doc,man,locale}/*
    tar -C "$cache/base" --numeric-owner -cf "$cache/base.tar.part" .
    mv "$cache/base.tar.part" "$cache/base.tar"
fi

if [ ! -s "$cache/servers.tar" ]; then
    say "adding PostgreSQL, RabbitMQ and Redis from Debian (once; kept in $cache)"
    # Anew: what an earlier, interrupted run left may be half installed.
    rm -rf --one-file-system "$cache/base"
    mkdir "$cache/base"
    tar -C "$cache/base" --numeric-owner -xpf "$cache/base.tar"
    printf '#!/bin/sh\nexit 101\n' >"$cache/base/usr/sbin/policy-rc.d"
    chmod +x "$cache/base/usr/sbin/policy-rc.d"
    # No cluster at install: the entrypoint makes one, in the volume.
    mkdir -p "$cache/base/etc/postgresql-common"
    echo 'create_main_cluster = false' >"$cache/base/etc/postgresql-common/createcluster.conf"
    cp /etc/resolv.conf "$cache/base/etc/resolv.conf"
    [ ! -d /etc/apt/apt.conf.d ] || cp -n /etc/apt/apt.conf.d/*proxy* "$cache/base/etc/apt/apt.conf.d/" 2>/dev/null || true
    DEBIAN_FRONTEND=noninteractive chroot "$cache/base" sh -c \
        'apt-get update && apt-get install -y --no-install-recommends postgresql rabbitmq-server redis-server' \
        >"$cache/servers.log" 2>&1 || { tail -20 "$cache/servers.log" >&2; exit 1; }
    rm -rf "$cache"/base/var/cache/apt/* "$cache"/base/var/lib/apt/lists/* "$cache"/base/usr/share/{doc,man,locale}/*
    tar -C "$cache/base" --numeric-owner -cf "$cache/servers.tar.part" .
    mv "$cache/servers.tar.part" "$cache/servers.tar"
    rm -rf "$cache/base"
fi

docker image inspect "$base" >/dev/null 2>&1 || docker import \
    --change 'LABEL gristmill.standin=true' --change 'CMD ["bash"]' "$cache/base.tar" "$base" >/dev/null

servers=gristmill-standin-servers
docker image inspect "$servers" >/dev/null 2>&1 || docker import \
    --change 'LABEL gristmill.standin=true' "$cache/servers.tar" "$servers" >/dev/null

make_image() { # NAME DOCKERFILE-LINES
    printf 'FROM %s\nCOPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh\n%s\nENTRYPOINT ["docker-entrypoint.sh"]\n' "$servers" "$2" \
        | DOCKER_BUILDKIT=0 docker build --quiet --tag "$1" --file - compose/standins >"$cache/image.log" 2>&1 \
        || { cat "$cache/image.log" >&2; exit 1; }
}
make_image "$postgres" 'ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
CMD ["postgres"]'
make_image "$rabbitmq" 'VOLUME /var/lib/rabbitmq
CMD ["rabbitmq-server"]'
make_image "$redis" 'VOLUME /data
WORKDIR /data
CMD ["redis-server"]'
say "built STAND-INS (Debian packages, not the official images) as $base $postgres $rabbitmq $redis"
