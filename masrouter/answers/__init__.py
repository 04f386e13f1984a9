"""What a model's answer says: its program, its number, its option. Nothing here runs an answer."""

from masrouter.answers.code import extract_code
from masrouter.answers.keys import answer_key
from masrouter.answers.values import extract_choice, extract_number, final_answer

__all__ = ["answer_key", "extract_choice", "extract_code", "extract_number", "final_answer"]
