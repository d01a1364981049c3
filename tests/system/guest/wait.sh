echo "caisson-test: waiting"
sleep 3
