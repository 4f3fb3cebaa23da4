"""What InfiniteBench says around a context: as to YaRN-Mistral, or in a conversation as to GPT-4.

src/prompt.py of https://github.com/OpenBMB/InfiniteBench (MIT).
"""

MASKED = (
    "Below is a dialogue script where one random occurrence of a character name is replaced with "
    '"$$MASK$$", and you should try to guess who that character is.\n\n'
)
HIDDEN = "There is an important info hidden inside a lot of irrelevant text. "
OPTIONS = "\nA. {OPTION_A}\nB. {OPTION_B}\nC. {OPTION_C}\nD. {OPTION_D}"
EXTRACT = (
    "Extract the value corresponding to the specified key in the JSON object below."
    "\n\n{context}\n\n{input}"
)
FIND = "{prefix}\n\n{context}\n\n{input}"

BASE = {
    "passkey": HIDDEN + "Find it and memorize it. I will quiz you about the important "
    "information.\n\n{context}\n\n{input}\n\nThe pass key is",
    "number_string": HIDDEN + "Find it. I will quiz you about the important information there."
    "\n\n{context}\n\n{input}\n\nThe sequence of digits is",
    "kv_retrieval": EXTRACT,
    "longbook_sum_eng": "Summarize the book below.\n\n{context}\n\nSummary:",
    "longbook_choice_eng": "Read the book and answer the question.\n\n{context}\n\n"
    "Question: {question}" + OPTIONS + "\n\nThe letter of the correct answer is",
    "longbook_qa_eng": "Read the book and answer the question. Be very concise in your answer."
    "\n\n{context}\n\nQuestion: {question}\nAnswer:",
    "longbook_qa_chn": "阅读以下书籍然后回答问题。\n\n{context}\n\n问题：{question}\n答案：",  # noqa: RUF001
    "math_find": FIND,
    "math_calc": "Let us calculate the intermediate values of an expression.\n\n"
    "Expression: 1 + 3 + 4\nValues: [1, 4, 8]\n\n"
    "Expression: 8 - 3 + 2 - 4\nValues: [8, 5, 7, 3]\n\n"
    "Expression: {context}\nValues:",
    "code_run": "There is a function called {func} in the following Python code.\n\n{context}\n\n"
    "Please compute the exact value of {func_call}. The value of {func_call} is",
    "code_debug": "Following is a Python code where exactly one of the functions/methods has a "
    "deliberate error that makes it crash.\n\n{context}\n\nOptions:"
    + OPTIONS
    + "\n\nThe correct option is:",
    "longdialogue_qa_eng": MASKED
    + "{context}\n\nThe name that has been replaced with $$MASK$$ is likely",
}
CHAT = {
    "passkey": HIDDEN + "Find it and memorize them. I will quiz you about the important "
    "information there.\n\n{context}\n\n{input}",
    "number_string": HIDDEN + "Find it. I will quiz you about the important information there."
    "\n\n{context}\n\n{input}",
    "kv_retrieval": EXTRACT,
    "longbook_sum_eng": "Summarize the following book.\n\n{context}",
    "longbook_choice_eng": "Read the book and answer the question.\n\n{context}\n\n"
    "Question: {question}\n\nOnly one of the following options is correct, tell me the answer "
    "using one single letter (A, B, C, or D). Don't say anything else." + OPTIONS,
    "longbook_qa_eng": "Read the book below and answer a question.\n\n{context}\n\n"
    "Question: {question}\n\nBe very concise.",
    "longbook_qa_chn": "请根据以下书籍回答我的问题。\n\n{context}\n\n"
    "问题：{question}\n请尽量简短地回答。",  # noqa: RUF001
    "math_find": FIND,
    "math_calc": "Compute the intermediate values in the following long expression.\n\n{context}",
    "code_run": "Following is a set of Python functions. There is a function called named {func}."
    "\n\n{context}\n\nPlease give me the exact number of the return value of {func_call}. Be "
    "concise. Your response must end with the final returned value.",
    "code_debug": "There is ONLY ONE function in the large project that is deliberately made to "
    "include an obvious error. Please find the function that contains the most obvious errors. I "
    "will give you four options to narrow your scope. You can inspect the options and think. "
    "Eventually, tell me the answer using one single letter (A, B, C, or D).\n\n{context}\n\n"
    "Which funtion has deliberate error?"
    + OPTIONS
    + "\n\nYou should first find the functions in the options. Repeat their content, inspect "
    "through code, and at last give me your answer for the function that has the deliberate and "
    "obvious error in A, B, C, or D.",
    "longdialogue_qa_eng": MASKED + "The dialogue:\n\n---\n\n{context}\n\n---\n\nEnd of dialogue."
    '\n\nWhich character is most likely "$$MASK$$"? Just say the name used by the scriptwriter '
    "(before the colon marks) of one single character and nothing else.",
}
