"""The prompt: the text a record becomes, and the chat template that builds the same text when the model is served.

The words are those of the original Falcon-180B recipe (philschmid/deep-learning-pytorch-huggingface,
`training/deepseed-falcon-180b-lora-fa.ipynb`): instruction, context only if present, answer, joined by blank lines.
"""

CONTEXT = "\n\n### Context\n"

CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string %}{{- content -}}{% else %}\
{%- for part in content if part.type == 'text' %}{{- part.text -}}{% endfor %}{% endif %}
{%- endmacro -%}
{%- set state = namespace(asked='', asks=false, before='') -%}
{%- for message in messages -%}
{%- if message.role in ('system', 'developer', 'user') -%}
{%- set said = text(message.content) -%}
{%- set state.asked = state.asked + ('\\n\\n' if state.asked and said else '') + said -%}
{%- set state.asks = true -%}
{%- elif message.role == 'assistant' -%}
{%- if state.asks %}{{- state.before + '### Instruction\\n' + state.asked + '\\n\\n### Answer\\n' -}}{% endif %}
{{- text(message.content) + eos_token -}}
{%- set state.asked = '' -%}{%- set state.asks = false -%}{%- set state.before = '\\n\\n' -%}
{%- else -%}
{{- raise_exception('A message has the role ' + message.role + '; system, user and assistant are known.') -}}
{%- endif -%}
{%- endfor -%}
{%- if state.asks %}{{- state.before + '### Instruction\\n' + state.asked + '\\n\\n### Answer\\n' -}}{% endif -%}
"""
"""Renders a user message exactly as the recipe prints a record.

The prompt ends in the answer's heading whether or not `add_generation_prompt` is asked for: a user's turn without it
was never trained. System text, which the recipe has no place for, opens the instruction; several messages before an
answer are one instruction, their texts joined by blank lines.
"""


def user_message(instruction: str, context: str) -> str:
    """The content of the user message that stands for a record: the context goes where the prompt prints it."""
    return instruction + CONTEXT + context if context else instruction


def heading(message: str) -> str:
    """The prompt that asks for an answer to one message."""
    return f"### Instruction\n{message}\n\n### Answer\n"
