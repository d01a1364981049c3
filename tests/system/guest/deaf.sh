# Nobody listens to the power button here.
echo "caisson-test: waiting"
sleep 3600
