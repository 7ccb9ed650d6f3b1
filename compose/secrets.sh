#!/bin/sh
# Makes every secret of the stack once, into one folder per reader, and leaves those that exist.
#
# A container mounts only its own folder: the worker, which runs other people's commands, sees neither the database's
# password nor the admin's.
set -eu
umask 077
root=${1:-/secrets}

random() { # hexadecimal, so that it needs no escaping in URLs and configuration files
    od -An -N"${1:-24}" -tx1 /dev/urandom | tr -d ' \n'
}

put() { # FILE MODE OWNER TEXT
    printf '%s' "$4" >"$root/$1.new"
    chmod "$2" "$root/$1.new"
    chown "$3" "$root/$1.new"
    mv "$root/$1.new" "$root/$1"
}

for folder in postgres rabbitmq redis control worker; do
    mkdir -p "$root/$folder"
    chmod 755 "$root/$folder"
done
if [ -e "$root/control/complete" ]; then
    echo "secrets: exist, kept"
    exit 0
fi

postgres=$(random)
rabbitmq=$(random)
redis=$(random)
key=$(random 32)
app=10001:10001 # the user of the gristmill image

# The servers drop root before they read these, each to a user id of its own; only their container mounts them.
put postgres/password 444 0:0 "$postgres"
put rabbitmq/rabbitmq.conf 444 0:0 "$(cat <<CONF
default_user = gristmill
default_pass = $rabbitmq
vm_memory_high_watermark.relative = 0.5
disk_free_limit.absolute = 512MB
# The healthcheck connects every few seconds and would fill the log.
log.connection.level = error
CONF
)
"
put redis/redis.conf 444 0:0 "requirepass $redis
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"

for folder in control worker; do
    put $folder/amqp_url 400 $app "amqp://gristmill:$rabbitmq@rabbitmq:5672/%2f"
    put $folder/redis_url 400 $app "redis://:$redis@redis:6379/0"
    put $folder/secret_key 400 $app "$key"
done
put control/database_url 400 $app "postgres://gristmill:$postgres@postgres:5432/gristmill"
put control/admin_password 400 $app "$(random 12)"
put control/complete 400 $app "" # last: what broke off before is made anew
echo "secrets: made"
