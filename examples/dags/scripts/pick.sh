# Prints the words of $WORDS as a JSON list.
printf '['
separator=''
for word in $WORDS; do
  printf '%s"%s"' "$separator" "$word"
  separator=', '
done
printf ']\n'
