"""Goals as people write them, with all that they need and without.

Written when the signals were done, by somebody who knew them; no signal and no weight is chosen on
these, so that they tell how often an ordinary goal is asked about needlessly.
"""

from __future__ import annotations

WHOLE = (
    # code
    "Write a Rust function that reverses a singly linked list in place.",
    "Why does this throw an error?\n\nconst x = 5;\nx = 6;",
    "Explain what the following command does: tar -xzf archive.tar.gz -C /opt",
    "Rewrite this loop as a comprehension: `out = []; for n in nums: out.append(n * 2)`",
    "Fix the failing test in tests/test_cart.py and explain what was wrong.",
    "Refactor the code in src/billing/invoice.ts so that no function is longer than 30 lines.",
    "How can I speed up my code when it spends most of its time in pandas groupby?",
    "Write a unit test for a function that parses ISO dates; it should cover leap years.",
    "Which of these sorting algorithms is stable: quicksort, mergesort or heapsort?",
    "Make a regular expression that matches hexadecimal colours such as #ff00aa.",
    # e-mail and other texts
    "Write an e-mail to our landlord. The heating has been out since Monday, and we want it fixed.",
    "Reply to this message: 'Hi, are we still on for lunch tomorrow?' Say that I am ill.",
    "Shorten this text to ten words: The quick brown fox jumped over the lazy dog near the river.",
    "Improve the following sentence: Me and him goes to school.",
    "Draft an invitation to my daughter's birthday party. She turns six; her friends are asked.",
    "Write a thank-you note to a nurse who looked after my father when he was in hospital.",
    "Then and now: write an essay of 300 words on how cities have changed since 1900.",
    "Write three headlines for an article about bees and why they matter.",
    "Make this sound friendlier: Your payment is late. Pay at once.",
    "Give me feedback on this opening line: It was a bright cold day in April.",
    # mathematics and facts
    "What is the volume of a sphere with radius r?",
    "How many prime numbers are there below 100?",
    "How long does it take light to get from the Sun to the Earth?",
    "How much caffeine is in a cup of green tea?",
    "What is the difference between a virus and a bacterium?",
    "What was the price of gold in 1980?",
    "How fast can a cheetah run?",
    "How many people lost their lives in the First World War?",
    "What is the total surface area of a cube in terms of its side?",
    "Prove that the sum of two even numbers is even.",
    # data, translation, everything else
    "Sort the following names by length.\nAlexandra\nBo\nTimothy",
    "Turn this list into a table: apples 3, pears 5, plums 9",
    "Extract the years from the text below.\n\nBorn in 1912, he moved to Paris in 1931.",
    "Translate the sentence 'They have lost their keys' into Italian.",
    "Translate this into Polish: Thank you for your help.",
    "Can you summarise https://example.com/news/today for me?",
    "Suggest names for a cat whose fur is black and who sleeps all day.",
    "He olvidado la palabra inglesa para 'mariposa'. ¿Cuál es?",
    "Plan a week of vegetarian dinners; they should take at most half an hour each.",
    "What do the letters TBD stand for?",
)
LACKING = (
    "Fix this bug.",
    "Summarise the document.",
    "Translate the text into Spanish and keep the tone.",
    "Proofread my essay.",
    "What is wrong with this code?",
    "Rewrite the above in plain English.",
    "Based on the table below, which region sold most?",
    "Write to [your client's name] and move the meeting.",
    "Convert the following numbers to binary.",
    "How old is she now?",
    "Which of the following is not a mammal?",
    "Therefore, which of them is the oldest?",
    "Please review the attached contract.",
    "Choose the correct answer.",
    "Compare these two lists.",
    "Make it shorter.",
    "Add a chart to the slides.",
    "Send him the figures from last week.",
    "How many apples are left over?",
    "Explain this.",
)
