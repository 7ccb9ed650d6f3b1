#!/bin/sh
# Installs an S3-speaking server (moto) into a virtual environment and prints the path of its program.
# Usage: s3_server.sh FOLDER    (a folder below the build's target folder; made if it is missing)
# Start it with `-H 127.0.0.1 -p 0`; it then prints the port it took on its standard error.
set -eu
folder=${1:?usage: s3_server.sh FOLDER}
version=5.2.5
program=$folder/moto-$version/bin/moto_server
if [ ! -x "$program" ]; then
    mkdir -p "$folder"
    # Several test processes may come here at once: build aside, the first one moves it into place.
    aside=$(mktemp -d "$folder/.install-XXXXXX")
    python3 -m venv "$aside/env"
    "$aside/env/bin/python" -m pip install --quiet --disable-pip-version-check "moto[s3,server]==$version" >&2
    # Scripts of an environment hold its path, so write the one that is wanted with the final path.
    cat > "$aside/env/bin/moto_server" <<SCRIPT
#!/bin/sh
exec "$folder/moto-$version/bin/python" -c 'import sys; from moto.server import main; sys.exit(main())' "\$@"
SCRIPT
    chmod +x "$aside/env/bin/moto_server"
    mv -T "$aside/env" "$folder/moto-$version" 2>/dev/null || [ -x "$program" ]
    rm -rf "$aside"
fi
echo "$program"
