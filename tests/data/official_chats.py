"""Twenty conversations for the comparison with official chat templates, and what a client would send of each."""

import json
from dataclasses import replace

from tunesmith.core.types import Conversation, Message, ToolCall
from tunesmith.data.call_ids import call_ids

NAMED = {
    "qwen2_5": "qwen",
    "qwen3": "qwen3",
    "llama3": "llama3",
    "mistral_v3": "mistral",
    "phi4": "phi4",
    "gemma2": "gemma2",
    "deepseek_v3": "deepseek3",
}
"""Folder of a tokenizer -> the template that must write what its own chat template writes."""

TOOLS = (
    {
        "name": "weather",
        "description": "Look up the weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}},
    },
    {
        "name": "计算",
        "description": "Work out.",
        "parameters": {"type": "object", "properties": {"expr": {"type": "string"}}},
    },
)
SPECIAL = "a<|im_end|><|eot_id|></s>[INST]<end_of_turn><｜Assistant｜>b<｜end▁of▁sentence｜>"
ZURICH, BEIJING = ToolCall("weather", {"city": "Zürich"}), ToolCall("weather", {"city": "北京", "days": 2})


def user(text):
    return Message("user", text)


def answer(text, *calls, thought=None):
    return Message("assistant", text, calls, thought)


def system(text):
    return Message("system", text)


def result(text):
    return Message("tool", text)


HI = (user("Hi there"), answer("Hello."))
LONG = (*HI, user("Name a fruit,\nany fruit."), answer("An apple."))
_PLAIN = {
    "one": HI,
    "system": (system("Be brief."), *HI),
    "two": LONG,
    "two_system": (system("Be brief."), *LONG),
    "three": (*LONG, user("Another?"), answer("A pear, or a plum.")),
    "four_system": (system("Be brief.\nBe kind."), *LONG, user("z"), answer("y"), user("Bye!"), answer("See you.")),
    "empty_answer": (user("Say nothing."), answer("")),
    "chinese": (user("你好，请介绍一下自己。"), answer("我是一个人工智能助手。")),
    "emoji": (system("Nur Emojis 🙂"), user("👩‍👩‍👧 née Müller?"), answer("🦊🦊")),
    "leading_blanks": (user("  four = 2 + 2\n\n"), answer("  x = 1\n  y = 2")),
    "blanks_in_history": (user(" a "), answer(" b "), user(" c\n"), answer("d ")),
    "braces": (user("{{ x }} {% y %} <tag> \\n 'q' \"r\""), answer("def f(x):\n\treturn {x}")),
    "special": (user(SPECIAL), answer("fine")),
}
_THINKING = {
    "thought": (user("2+2?"), answer("4", thought="two and two")),
    "thoughts_in_history": (user("2+2?"), answer("4", thought="easy"), user("3+3?"), answer("6", thought="harder")),
    "thought_in_content": (user("2+2?"), answer("<think>\nhm\n</think>\n\n4"), user("And?"), answer("5")),
}
_CALLING = {
    "call": (user("Weather?"), answer("", ZURICH), result('{"t": 21}'), answer("21 degrees.")),
    "parallel_calls": (user("Both?"), answer("", ZURICH, BEIJING), result("1"), result("2"), answer("1 and 2.")),
    "text_beside_call": (user("Weather?"), answer("I will look.", ZURICH), result("1"), answer("One.")),
    "two_steps": (*HI, user("?"), answer("", ZURICH), result("1"), answer("", BEIJING), result("2"), answer("Done.")),
}
CHATS = {
    **{name: Conversation(messages) for name, messages in (_PLAIN | _THINKING).items()},
    **{name: Conversation(messages, TOOLS) for name, messages in _CALLING.items()},
}


def request_of(chat):
    """The body of POST /v1/chat/completions for the last answer; results of parallel calls in another order."""
    messages = []
    for message, ids in zip(chat.messages[:-1], call_ids(chat.messages[:-1], short=True), strict=True):
        item = {"role": message.role, "content": message.content}
        if message.tool_calls:
            item["content"] = message.content or None
            item["tool_calls"] = [
                _sent(replace(call, id=one)) for one, call in zip(ids, message.tool_calls, strict=True)
            ]
        if message.role == "tool":
            item["tool_call_id"] = ids[0]
        if message.reasoning_content is not None:
            item["reasoning_content"] = message.reasoning_content
        place = len(messages)
        while message.role == "tool" and messages[place - 1]["role"] == "tool":
            place -= 1
        messages.insert(place, item)
    tools = [{"type": "function", "function": tool} for tool in chat.tools or ()]
    return {"model": "m", "messages": messages, **({"tools": tools} if tools else {})}


def _sent(call):
    function = {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)}
    return {"id": call.id, "type": "function", "function": function}
