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
{%- set state = namespace(system='', turns=0) -%}
{%- for message in messages -%}
{%- if message.role in ('system', 'developer') -%}
{%- set state.system = state.system + text(message.content) + '\\n\\n' -%}
{%- elif message.role == 'user' -%}
{{- '\\n\\n' if state.turns else '' -}}
{{- '### Instruction\\n' + state.system + text(message.content) + '\\n\\n### Answer\\n' -}}
{%- set state.system = '' -%}{%- set state.turns = state.turns + 1 -%}
{%- elif message.role == 'assistant' -%}
{{- text(message.content) + eos_token -}}
{%- else -%}
{{- raise_exception('A message has the role ' + message.role + '; system, user and assistant are known.') -}}
{%- endif -%}
{%- endfor -%}
"""
"""Renders a user message exactly as `prompt_text` does.

The prompt ends in the answer's heading whether or not `add_generation_prompt` is asked for: a user's turn without it
was never trained. System text, which the recipe has no place for, opens the next instruction.
"""


def user_message(instruction: str, context: str) -> str:
    """The content of the user message that stands for a record: the context goes where the prompt prints it."""
    return instruction + CONTEXT + context if context else instruction


def prompt_text(instruction: str, context: str) -> str:
    """The text before the answer."""
    return f"### Instruction\n{user_message(instruction, context)}\n\n### Answer\n"
