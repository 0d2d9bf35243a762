"""The kinds of tasks by name, and answers of any kind."""

from collections.abc import Sequence
from functools import cache
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, core_schema

from data.kinds.comparison import Comparison
from data.kinds.kind import Answer, InvalidAnswer, Kind
from data.kinds.ranking import Ranking
from data.kinds.verdict import Verdict

KINDS: dict[str, Kind[Any]] = {kind.name: kind for kind in (Verdict(), Ranking(), Comparison())}
"""The kinds of tasks. A new kind is one file here, and one entry."""


def _known(name: str) -> str:
    if name not in KINDS:
        *most, last = (repr(known) for known in KINDS)
        expected = f"{', '.join(most)} or {last}"
        raise PydanticCustomError(
            "literal_error", "Input should be {expected}", {"expected": expected}
        )
    return name


_NAMES = Field(json_schema_extra=lambda schema: schema.update(enum=list(KINDS)))
TaskKind = Annotated[str, AfterValidator(_known), _NAMES]
"""Name of a kind of task."""


class _OfAnyKind:
    """Schema of an answer of any kind, chosen by the key `kind`; kinds may join `KINDS` later."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: type[Answer], _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: _validator(*KINDS).validate_python(value),
            serialization=core_schema.simple_ser_schema("any"),
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(_any_answer(*KINDS))


AnyAnswer = Annotated[Answer, _OfAnyKind]
"""Answer of any kind, as a field of a model."""


@cache
def _validator(*names: str) -> SchemaValidator:
    return SchemaValidator(_any_answer(*names))


def _any_answer(*names: str) -> CoreSchema:
    models = {name: KINDS[name].answer.__pydantic_core_schema__ for name in names}
    return core_schema.tagged_union_schema(models, discriminator="kind")


def kind_of(answer: Answer) -> Kind[Any]:
    """Return the kind of an answer."""
    return KINDS[answer.kind]


def parse_answer(kind: str, text: str) -> Answer:
    """Read the JSON of an answer to a task of this kind.

    Raises:
        ValidationError (pydantic): the JSON is not an answer of this kind.
    """
    answer: Answer = KINDS[kind].answer.model_validate_json(text)
    return answer


def check_answer(answer: Answer, kind: str, image_ids: Sequence[str]) -> None:
    """Check that the answer is of this kind, about exactly these images.

    Raises:
        InvalidAnswer: the answer does not fit.
    """
    if answer.kind != kind:
        raise InvalidAnswer(
            f"answer: a {answer.kind} answer to a {kind} task; answer in the task's kind"
        )
    KINDS[kind].check(answer, image_ids)


def is_skip(answer: Answer) -> bool:
    """Whether the answer says nothing about quality: skip, unsafe, or no rank at all."""
    return kind_of(answer).is_skip(answer)


def reported_images(answer: Answer, image_ids: Sequence[str]) -> set[str]:
    """Return the images of `image_ids` that the answer reports as unsafe."""
    return kind_of(answer).reported(answer, image_ids)


def agrees_with_gold(answer: Answer, gold: Answer) -> bool | None:
    """Return whether an answer is right; None if it is neither right nor wrong."""
    return kind_of(answer).agrees(answer, gold)
