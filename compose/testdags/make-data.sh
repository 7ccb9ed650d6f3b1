#!/bin/sh
# Writes twelve CSV files of 3000 rows, the same on every machine.
set -eu
mkdir -p "$1"
for file in 01 02 03 04 05 06 07 08 09 10 11 12; do
    awk -v file="$file" 'BEGIN {
        print "shop,day,amount"
        for (i = 0; i < 3000; i++) {
            x = (i * 7919 + file * 104729) % 10007
            printf "shop-%d,2026-%s-%02d,%d\n", x % 7, file, i % 28 + 1, x % 500
        }
    }' > "$1/sales-$file.csv"
done
