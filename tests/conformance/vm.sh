# Run by systemd in an emulated machine: the scenarios that are listed beside this file, in every way
# that they can be run in. The second serial line takes what comes of each, and of all.
exec >/dev/ttyS1 2>&1 </dev/null
stty -F /dev/ttyS1 raw
cd /package

# Programs know each other by where they were built.
built=$(<built)
mkdir -p "${built%/*}"
ln -s /package "$built"

try() {
    local test=$1 said=/tmp/said code=0
    shift
    # What is not seen has been looked for in the wrong place.
    timeout 300 "$@" >$said 2>&1 && grep -q '1 passed' $said && ! grep -q 'not seen here' $said ||
        code=$?
    if ((code == 0)); then
        echo "ok $test"
    else
        echo "failed $test"
        sed 's/^/    /' $said
    fi
}

alice=(setpriv --reuid=alice --regid=alice --init-groups
    env HOME=/home/alice USER=alice XDG_RUNTIME_DIR=/run/user/1000)
service=(systemd-run --quiet --pipe --wait --property=Delegate=yes
    --property=DelegateSubgroup=supervisor --setenv=HOME=/root --setenv=CONFORMANCE_ALL=1
    --setenv=CONFORMANCE_CLOCK=1)
# There a daemon is not alone in its group, and can give no controller to those below.
scope=(systemd-run --quiet --scope --property=Delegate=yes env --unset=CONFORMANCE_ALL)
# The clock is nobody else's.
export HOME=/root CONFORMANCE_ALL=1 CONFORMANCE_CLOCK=1

systemctl start user@1000
while read -r scenario; do
    systemd=(./conformance --ignored --exact "inside::$scenario" --nocapture)
    native=(/package/conformance --exact "native::$scenario" --nocapture)
    try "systemd $scenario" "${systemd[@]}"
    try "systemd-user $scenario" "${alice[@]}" "${systemd[@]}"
    try "native-service $scenario" "${service[@]}" "${native[@]}"
    try "native-scope $scenario" "${scope[@]}" "${native[@]}"
done <scenarios
echo end
systemctl poweroff
