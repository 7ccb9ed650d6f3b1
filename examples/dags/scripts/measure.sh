# Prints {"word": …, "letters": …} for $WORD. What goes to stderr is log only.
echo "measuring $WORD" >&2
printf '{"word": "%s", "letters": %d}\n' "$WORD" "${#WORD}"
