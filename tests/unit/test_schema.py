"""The JSON schema beside the workflow is the one that the settings models export."""

from pathlib import Path

from kvpareto.settings import export_schema

SCHEMA = Path(__file__).parents[2] / "workflow/schemas/config.schema.json"


def test_the_schema_is_in_sync_with_the_settings():
    assert SCHEMA.read_text() == export_schema(), "run `make schema`"
