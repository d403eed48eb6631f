#!/bin/sh
# Write the secrets of this cell into .env, and the certificates of its servers into tls/. Existing files are kept.
set -eu
cd "$(dirname "$0")"
umask 077

secret() { openssl rand -hex 24; }

[ -e .env ] || {
    printf '# Keys of providers: OPENAI_API_KEY=…\n'
    for name in EDGE_SECRET GATEWAY_ADMIN_TOKEN GATEWAY_VIEWER_TOKEN GATEWAY_PEPPER GATEWAY_DATABASE_PASSWORD GATEWAY_VALKEY_PASSWORD GRAFANA_PASSWORD; do
        printf '%s=%s\n' "$name" "$(secret)"
    done
} > .env
. ./.env
[ -e edge-secret.conf ] || printf 'proxy_set_header x-edge-secret "%s";\n' "$EDGE_SECRET" > edge-secret.conf
rm -f metrics-token # an earlier form of this folder had it

mkdir -p tls
chmod 755 tls
[ -e tls/ca.key ] || openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 3650 \
    -subj '/CN=assistant-gateway cell' -addext 'basicConstraints=critical,CA:TRUE' \
    -addext 'keyUsage=critical,keyCertSign,cRLSign' -keyout tls/ca.key -out tls/ca.crt 2> /dev/null
for name in database valkey public; do
    [ ! -e "tls/$name.crt" ] || continue
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj "/CN=$name" -keyout "tls/$name.key" \
        -out "tls/$name.csr" 2> /dev/null
    printf 'subjectAltName=DNS:%s,DNS:localhost\nbasicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\n' "$name" > tls/extensions
    openssl x509 -req -in "tls/$name.csr" -CA tls/ca.crt -CAkey tls/ca.key -days 825 -extfile tls/extensions \
        -out "tls/$name.crt" 2> /dev/null
    rm "tls/$name.csr" tls/extensions
done
# The containers' users are not yours. Servers read the keys as root; only certificates are read by others.
chmod 600 .env edge-secret.conf tls/*.key
chmod 644 tls/*.crt
echo "wrote .env and tls/: write the keys of your providers into .env"
