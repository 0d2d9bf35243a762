"""The admins' part: JSON routes, and the page that draws their answers."""
