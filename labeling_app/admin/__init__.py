"""The admins' part: actions, figures, and the page that shows them."""
