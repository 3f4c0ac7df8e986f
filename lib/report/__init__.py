"""What readers see: tables, figures, answers, pages, the front page, and where results come from.

Only this room draws. Colours and labels are in `style`, the look of pages in `templates`. Measuring
never depends on it, so an edited caption retrains nothing."""
