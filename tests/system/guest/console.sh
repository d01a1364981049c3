# Everything typed comes back; then many bytes right before the end.
echo "caisson-test: type"
stty -echo
read -r line
echo "got <$line>"
i=0
while [ $i -lt 200 ]; do
  i=$((i + 1))
  echo "line $i ........................................................................................ end"
done
