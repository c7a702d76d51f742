"""`POST /v1/messages/count_tokens`: what a prompt takes, by the model's own chat template and tokenizer."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from gateway.access import check_allowed
from gateway.api.anthropic.translate import parse_count
from gateway.api.errors import ApiError, bad_request
from gateway.api.requests import ApiRequest
from gateway.api.translated import Translation
from gateway.body import read_body
from gateway.config import GatewayConfig
from gateway.json_answer import json_answer
from gateway.prompts import read_prompts
from inference.errors import RequestRefusedError
from inference.tokenizer import ModelTokenizer, Tokenizers
from model_registry.entities import Model
from model_registry.snapshot import Snapshot
from router.profiles import resolve
from tenancy.keys import authenticate


class TokenCounts:
    """Counts prompts without asking any engine."""

    path = "/v1/messages/count_tokens"

    def __init__(
        self, config: GatewayConfig, snapshot: Callable[[], Snapshot], tokenizers: Tokenizers
    ) -> None:
        self._config = config
        self._snapshot = snapshot
        self._tokenizers = tokenizers

    def routes(self) -> list[web.RouteDef]:
        """Its one path."""
        return [web.post(self.path, self.count)]

    async def count(self, request: web.Request) -> web.Response:
        """The tokens of the prompt that a message of this body would have."""
        headers = request.headers
        snapshot = self._snapshot()
        identity = authenticate(snapshot, headers.get("Authorization"), headers.get("x-api-key"))
        api = parse_count(await read_body(request, self._config), self._config.limits)
        wish = resolve(
            snapshot,
            api.model,
            api.service_tier,
            headers.get("X-Enginehouse-Profile"),
            identity.policy.profile_for,
        )
        check_allowed(identity, wish)
        model = wish.model
        tokenizer = await self._tokenizer(model)
        tokens = await self._tokens(api, model, tokenizer)
        return json_answer({"input_tokens": tokens})

    async def _tokenizer(self, model: Model) -> ModelTokenizer:
        if model.tokenizer is None:
            raise bad_request(
                f"The tokens of {model.name!r} are known to its server alone. An answer's usage tells them.",
                "model",
                "unsupported_parameter",
            )
        return await self._tokenizers.get(model)

    async def _tokens(self, api: ApiRequest, model: Model, tokenizer: ModelTokenizer) -> int:
        translation = api.translation
        assert translation is not None
        try:
            api.refuse_unserved()
            return sum(len(prompt.ids) for prompt in await read_prompts(api, model, tokenizer))
        except ApiError as error:
            raise translation.retold(error) from None
        except RequestRefusedError as error:
            raise _refused(translation, error) from error


def _refused(translation: Translation, error: RequestRefusedError) -> ApiError:
    place = None if error.param is None else translation.place_of(error.param)
    return bad_request(str(error), place, "request_refused")
