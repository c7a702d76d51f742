#!/bin/sh
# A streamed answer with curl: ENGINEHOUSE_API_KEY=... examples/curl.sh [MODEL] [QUESTION]
set -eu

model=${1:-house-chat}
question=${2:-What is an enginehouse?}

curl --no-buffer --fail-with-body "${ENGINEHOUSE_URL:-http://127.0.0.1:8080}/v1/chat/completions" \
    --header "Authorization: Bearer ${ENGINEHOUSE_API_KEY:?set it to a key of the gateway}" \
    --header "Content-Type: application/json" \
    --data "{\"model\": \"$model\", \"stream\": true, \"messages\": [{\"role\": \"user\", \"content\": \"$question\"}]}"
