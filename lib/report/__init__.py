"""What the notebooks show: tables, figures, sentences, answers.

Only this room and those above it draw. Colours and labels are in `style`. Measuring never depends
on it, so an edited caption retrains nothing."""
