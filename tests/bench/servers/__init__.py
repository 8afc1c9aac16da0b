"""The contestants' servers, each in its library's own fast idiom; `MODE` is lines, http, receive, send or broadcast."""
