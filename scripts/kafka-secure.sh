# Sourced by scripts/kafka: what `start --secure` adds. Keys, certificates and passwords are made anew for each cluster,
# lie in its folder and go with it. For tests and trials on one machine: every password stands in a readable file.

SECURE_USER=tamiz
TOKEN_ISSUER=https://issuer.tamiz.example
TOKEN_AUDIENCE=kafka

# `certificate NAME SUBJECT EXTENSIONS`: a key and a certificate of it that our authority signs.
certificate() {
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "$2" -keyout "$1.key" -out "$1.csr" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile <(printf '%s\n' "$3") -out "$1.pem" 2>/dev/null
  rm "$1.csr"
}

# Into a new folder: the authority, certificates of broker and client, passwords, and a key for tokens.
make_secrets() {
  have openssl || die "openssl is missing: install it (apt-get install openssl) and run again"
  rm -rf "$dir/secure"
  mkdir -p -m 700 "$dir/secure"
  (
    umask 077
    cd "$dir/secure"
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=tamiz test authority" -days 30 \
      -keyout ca.key -out ca.pem 2>/dev/null
    certificate broker /CN=broker "subjectAltName=DNS:localhost,IP:127.0.0.1"
    certificate client /CN=tamiz-client "extendedKeyUsage=clientAuth"
    # Kafka reads one file with the key and its certificates.
    openssl pkcs8 -topk8 -nocrypt -in broker.key >broker-all.pem
    cat broker.pem ca.pem >>broker-all.pem
    openssl rand -hex 16 | tr -d '\n' >password
    openssl rand -hex 16 | tr -d '\n' >key-password
    openssl pkcs8 -topk8 -v2 aes-256-cbc -in client.key -passout file:key-password -out client-encrypted.key
    mv client-encrypted.key client.key
    # Tokens are signed with this key; the broker knows its public half.
    openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out token.key
    python3 - "$(openssl rsa -in token.key -noout -modulus | cut -d= -f2)" >jwks.json <<'PY'
import base64, json, sys
number = base64.urlsafe_b64encode(bytes.fromhex(sys.argv[1])).rstrip(b"=").decode()
print(json.dumps({"keys": [{"kty": "RSA", "kid": "tamiz", "alg": "RS256", "use": "sig", "n": number, "e": "AQAB"}]}))
PY
  ) || die "keys and certificates could not be made in $dir/secure"
  cat >"$dir/secure.env" <<ENV
# What a client needs. The first lines are for tamiz: set -a; . this file; tamiz check
TAMIZ_SOURCE_KAFKA_BROKERS=127.0.0.1:$((port + 2))
TAMIZ_SOURCE_KAFKA_TLS_ENABLED=true
TAMIZ_SOURCE_KAFKA_TLS_CA_FILE=$dir/secure/ca.pem
TAMIZ_SOURCE_KAFKA_SASL_MECHANISM=scram_sha_512
TAMIZ_SOURCE_KAFKA_SASL_USERNAME=$SECURE_USER
TAMIZ_KAFKA_PASSWORD=$(cat "$dir/secure/password")
# The listener that asks for the client's certificate.
SECURE_MUTUAL=127.0.0.1:$((port + 3))
SECURE_CERTIFICATE=$dir/secure/client.pem
SECURE_KEY=$dir/secure/client.key
SECURE_KEY_PASSWORD=$(cat "$dir/secure/key-password")
# The listener that knows SCRAM-SHA-512 alone.
SECURE_ONLY_SCRAM=127.0.0.1:$((port + 4))
# Tokens: signed with this key (RS256, key id \`tamiz\`), of this issuer, for this audience.
SECURE_TOKEN_KEY=$dir/secure/token.key
SECURE_TOKEN_ISSUER=$TOKEN_ISSUER
SECURE_TOKEN_AUDIENCE=$TOKEN_AUDIENCE
# The listener without any security, and the authority's key, with which tests make certificates that are wrong.
SECURE_OPEN=127.0.0.1:$port
SECURE_AUTHORITY_KEY=$dir/secure/ca.key
ENV
  chmod 600 "$dir/secure.env"
}

scram_users() {
  for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
    printf -- '--add-scram\n%s=[name=%s,password=%s]\n' $mechanism "$SECURE_USER" "$(cat "$dir/secure/password")"
  done
}

secure_properties() {
  local modules=org.apache.kafka.common.security scram
  scram="$modules.scram.ScramLoginModule required;"
  cat <<P
ssl.keystore.type=PEM
ssl.keystore.location=$dir/secure/broker-all.pem
ssl.truststore.type=PEM
ssl.truststore.location=$dir/secure/ca.pem
listener.name.mutual.ssl.client.auth=required
sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER
listener.name.secure.scram-sha-256.sasl.jaas.config=$scram
listener.name.secure.scram-sha-512.sasl.jaas.config=$scram
listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-512
listener.name.scram.scram-sha-512.sasl.jaas.config=$scram
listener.name.secure.plain.sasl.jaas.config=$modules.plain.PlainLoginModule required user_$SECURE_USER="$(cat "$dir/secure/password")";
listener.name.secure.oauthbearer.sasl.jaas.config=$modules.oauthbearer.OAuthBearerLoginModule required;
listener.name.secure.oauthbearer.sasl.server.callback.handler.class=$modules.oauthbearer.OAuthBearerValidatorCallbackHandler
sasl.oauthbearer.jwks.endpoint.url=file://$dir/secure/jwks.json
sasl.oauthbearer.expected.issuer=$TOKEN_ISSUER
sasl.oauthbearer.expected.audience=$TOKEN_AUDIENCE
sasl.oauthbearer.clock.skew.seconds=1
# A connection lives as long as its token: the client has to come with a new one.
listener.name.secure.oauthbearer.connections.max.reauth.ms=3600000
P
}
