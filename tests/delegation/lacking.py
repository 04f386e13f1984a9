"""Everyday goals, each with whether it lacks something: tasks without outcomes, for the weights."""

from __future__ import annotations

from masrouter.delegation.calibration.missing_labels import LabelledGoal

WRITTEN = tuple(
    LabelledGoal(goal, lacks, context)
    for lacks, goal, context in (
        (True, "Summarise the attached report in three sentences.", ""),
        (True, "Fix the bug in the code above.", ""),
        (True, "Translate it into Dutch.", ""),
        (True, "Write a reply to {{customer_name}} about the late parcel.", ""),
        (True, "Proofread this letter and list its mistakes.", ""),
        (True, "Sort the following numbers in ascending order.", ""),
        (True, "Explain what the function in my script does.", ""),
        (True, "Draft an invoice over [insert amount] for a day of garden work.", ""),
        (True, "Compare these documents and say which is newer.", ""),
        (True, "Which of the following is a prime number?", ""),
        (True, "Extract all dates from the transcript.", ""),
        (True, "Continue the story in the same tone.", ""),
        (True, "How much did she pay for them altogether?", ""),
        (True, "Then add the second file and run it again.", ""),
        (True, "Book a table for us at the usual place.", ""),
        (True, "Convert the table below to JSON.", ""),
        (True, "What does the error message mean?", ""),
        (True, "Rewrite the paragraph so that a child understands it.", ""),
        (True, "Reply to the e-mail and decline politely.", ""),
        (True, "Plot the data as a bar chart with a title.", ""),
        (True, "Please debug this.", ""),
        (True, "Is the contract valid in Austria?", ""),
        (True, "Use the same settings as last time.", ""),
        (True, "Address the letter to <your landlord> and ask for a new boiler.", ""),
        (True, "Make out a certificate for {{ student }}, dated today.", ""),
        (True, "Announce that the concert begins at [enter time] and ends at ten.", ""),
        (False, "Summarise the attached report in three sentences.", "Sales rose by a tenth."),
        (False, "Translate 'good morning' into Dutch.", ""),
        (False, "Fix the bug in this code: `def f(x): return x +`.", ""),
        (False, "A mass is attached to a spring. Name the force that pulls it back.", ""),
        (False, "Write a Python function that reads a CSV file and returns its header.", ""),
        (False, "Sort the following numbers in ascending order: 9, 4, 7.", ""),
        (False, "Explain how a mail merge fills {{name}} in a template.", "It is a text format."),
        (False, "Which of the following is a prime number?\nA) 21\nB) 23\nC) 25", ""),
        (False, "Is a bicycle or a car faster over 300 metres in a city?", ""),
        (False, "How many legs does a spider have?", ""),
        (False, "Write a short letter to a landlord who has not repaired the boiler.", ""),
        (False, "Anna bought three pears. How much did she pay at 40 cents each?", ""),
        (False, "What is the area of the state of Bremen?", ""),
        (False, "Draft an invoice over 120 euros for a day of garden work.", ""),
        (False, "List the planets whose mass is above that of the Earth.", ""),
        (False, "Convert 5 miles to kilometres.", ""),
        (False, "Explain the difference between a list and a tuple in Python.", ""),
        (False, "Which planet is the largest?", ""),
        (False, "Write a poem about rain, and rewrite it as a limerick.", ""),
        (False, "How far is the Moon from the Earth?", ""),
        (False, "They say that the early bird catches the worm. Where is this saying from?", ""),
        (False, "Then and than are often confused. Give an example of each.", ""),
        (False, "Announce that the concert begins at eight and ends at ten.", ""),
        (False, "Name the last three German chancellors and when they took office.", ""),
        (False, "Review my argument: all cats sleep, Tom is a cat, so Tom sleeps.", ""),
        (False, "Answer in one word: what gas do plants take in?", ""),
    )
)  # fmt: skip
"""Everyday goals, with and without what they speak of; written by who wrote the signals."""
