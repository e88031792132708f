# Becomes the command of its arguments, after noting in the file $0 which process that is: there is no moment in which
# it runs and is not known.
read -r line <"/proc/$$/stat"
echo "$line" >"$0" || exit
# Files of whoever started the lab, locks for example, are none of its business.
for file in "/proc/$$/fd"/*; do
    file=${file##*/}
    if ((file > 2)); then exec {file}>&-; fi
done
exec "$@"
