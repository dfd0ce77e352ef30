#!/usr/bin/env bash
# lab.sh: a real Hadoop 3 cluster on 127.0.0.1 for tests, one JVM a daemon.
#   lab.sh prepare                              install and resolve everything (idempotent; non-zero = something is missing)
#   eval "$(lab.sh up simple|ha|secure|secure-ha [--hms|--hms4] [--yarn])"   start; prints the exports
#   lab.sh env                                  the exports again (LAB, HADOOP_CONF_DIR, KRB5_CONFIG, KEYTAB, HMS_URI, ...)
#   lab.sh kill|stop|cont|start NAME            SIGKILL, SIGSTOP, SIGCONT, start again: nn dn1.. nn1 nn2 jn rm nm hms kdc fs
#   lab.sh failover nn2 | state                 HA
#   lab.sh fs|admin|fsck|yarn ARGS              Hadoop's own command lines, as the superuser; cli CLASS ARGS: any other one
#   lab.sh fs-as-spot ARGS                      fs as user spot; both by a JVM that stays: several commands have -- between them, no stdin
#   lab.sh token FILE                           secure: an HDFS delegation token of user spot
#   lab.sh run-on-yarn ARGS                     see YarnRun.java; as user spot
#   lab.sh ps                                   daemons, pids, memory
#   lab.sh down                                 end everything of this LAB and remove it (KEEP=1 leaves the files)
# env: LAB (state directory; `up` makes one under TMPDIR), LAB_CACHE, DNS (3 datanodes), REPL (2), BLOCK (16 MiB),
#      HEAP (256m), BASE (first port of 100; default: a free one), PROT (privacy|integrity|authentication), AES=1, FRAMED=1 (metastore)
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${LAB_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hadoop-lab}
PYSPARK=4.1.1
REALM=LAB.TEST
NN=org.apache.hadoop.hdfs.server.namenode.NameNode
die() { echo "lab.sh: $*" >&2; exit 1; }
is() { case -$MODE- in *-$1-*) ;; *) return 1 ;; esac; } # secure, ha: of the lab's mode
say() { echo "lab.sh: $*" >&2; }
trap 'say "line $LINENO failed"' ERR

# ---- prepare -------------------------------------------------------------------------------------------------------
cp_ok() { [ -s "$CACHE/$1.cp" ] && cmp -s "$HERE/$1.xml" "$CACHE/$1.xml" && tr : '\n' <"$CACHE/$1.cp" | xargs ls >/dev/null 2>&1; }
resolve() { # POM: writes its class path
  if cp_ok "$1"; then return; fi
  say "resolving $1.xml"
  mvn -q -B -ntp -f "$HERE/$1.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath \
    -Dmdep.outputFile="$CACHE/$1.cp" >"$CACHE/$1.log" 2>&1 || die "missing: the artefacts of $1.xml (see $CACHE/$1.log)"
  cp "$HERE/$1.xml" "$CACHE/$1.xml"
}
spark_jars() { echo "$CACHE"/venv/lib/python3*/site-packages/pyspark/jars; }
prepare() {
  local miss="" c
  mkdir -p "$CACHE"
  for c in java:openjdk-17-jdk-headless javac:openjdk-17-jdk-headless mvn:maven cc:gcc curl:curl ss:iproute2 \
    krb5kdc:krb5-kdc kadmin.local:krb5-admin-server kinit:krb5-user; do
    PATH=$PATH:/usr/sbin command -v "${c%%:*}" >/dev/null || miss="$miss ${c##*:}"
  done
  python3 -c 'import venv, ensurepip' 2>/dev/null || miss="$miss python3-venv"
  if [ -n "$miss" ]; then
    say "installing$miss"
    local root=""; [ "$(id -u)" = 0 ] || root=sudo
    { $root apt-get -q update && $root env DEBIAN_FRONTEND=noninteractive apt-get -qy install --no-install-recommends $miss; } \
      >"$CACHE/apt.log" 2>&1 || die "missing Debian packages:$miss (see $CACHE/apt.log)"
  fi
  resolve pom; resolve pom-hms4
  if [ ! -x "$CACHE/venv/bin/spark-submit" ]; then
    say "installing pyspark $PYSPARK"
    { python3 -m venv "$CACHE/venv" && "$CACHE/venv/bin/pip" install -q --no-input "pyspark==$PYSPARK"; } \
      >"$CACHE/pip.log" 2>&1 || die "missing: pyspark from PyPI (see $CACHE/pip.log)"
  fi
  [ "$CACHE/loopback.so" -nt "$HERE/loopback.c" ] || cc -O2 -shared -fPIC -o "$CACHE/loopback.so" "$HERE/loopback.c" -ldl
  for c in YarnRun FsShells; do
    [ "$CACHE/classes/$c.class" -nt "$HERE/$c.java" ] ||
      javac -nowarn -proc:none -d "$CACHE/classes" -cp "$(cat "$CACHE/pom.cp")" "$HERE/$c.java" 2>"$CACHE/javac.log" || die "javac failed (see $CACHE/javac.log)"
  done
  say "ready: Hadoop $(sed -n 's/.*<hadoop.version>\(.*\)<.*/\1/p' "$HERE/pom.xml"), pyspark $PYSPARK, $(java -version 2>&1 | head -1)"
}

# ---- processes -----------------------------------------------------------------------------------------------------
stamp() { awk '{ sub(/.*\) /, ""); if ($1 != "Z") print $20 }' "/proc/$1/stat" 2>/dev/null || true; } # start time: a reused pid differs
pid() { local p s; [ -f "$LAB/pid/$1" ] || return 1; read -r p s <"$LAB/pid/$1"; [ -n "$s" ] && [ "$(stamp "$p")" = "$s" ] && echo "$p"; }
spawn() { # NAME COMMAND...
  local n=$1; shift
  if pid "$n" >/dev/null; then die "$n runs already"; fi
  LAB_DAEMON=$LAB setsid "$@" >>"$LAB/log/$n.log" 2>&1 </dev/null &
  echo "$! $(stamp $!)" >"$LAB/pid/$n"; disown
}
signal() { local p; p=$(pid "$2") || die "$2 does not run"; kill "-$1" "$p"; }
waitport() { # NAME PORT
  local i
  for i in $(seq 240); do
    (exec 3<>"/dev/tcp/127.0.0.1/$2") 2>/dev/null && return
    pid "$1" >/dev/null || die "$1 died: $(tail -3 "$LAB/log/$1.log")"
    sleep .25
  done
  die "$1: port $2 did not open"
}
freeport() { # PORT: one that is dying may still have it
  while (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; do sleep .1; done
}
JAVA() { java "@$LAB/java.args" "$@"; }
startd() {
  local d=$LAB/data i
  case $1 in
  kdc) KRB5_KDC_PROFILE=$LAB/krb/kdc.conf spawn kdc "$(PATH=$PATH:/usr/sbin command -v krb5kdc)" -n ;;
  jn) spawn jn java @"$LAB/java.args" org.apache.hadoop.hdfs.qjournal.server.JournalNode ;;
  nn) spawn nn java @"$LAB/java.args" $NN -D dfs.namenode.name.dir="file://$d/nn" ;;
  nn1 | nn2) spawn "$1" java @"$LAB/java.args" $NN -D dfs.ha.namenode.id="$1" -D dfs.namenode.name.dir="file://$d/$1" ;;
  dn[1-9]) i=${1#dn}
    spawn "$1" java @"$LAB/java.args" org.apache.hadoop.hdfs.server.datanode.DataNode -D dfs.datanode.data.dir="file://$d/$1" \
      -D dfs.datanode.address=127.0.0.1:$((BASE + 60 + i)) -D dfs.datanode.http.address=127.0.0.1:$((BASE + 80 + i)) -D dfs.datanode.ipc.address=127.0.0.1:$((BASE + 40 + i)) ;;
  fs) spawn fs java @"$LAB/java.args" FsShells $((BASE + 99)) ;;
  rm) spawn rm java @"$LAB/java.args" org.apache.hadoop.yarn.server.resourcemanager.ResourceManager ;;
  nm) spawn nm java @"$LAB/java.args" org.apache.hadoop.yarn.server.nodemanager.NodeManager ;;
  hms4) spawn hms env -C "$LAB/data" java @"$LAB/hms4.args" org.apache.hadoop.hive.metastore.HiveMetaStore -p $((BASE + 98)) ;;
  hms) if [ "$HMS" = 4 ]; then startd hms4; return; fi
    spawn hms env -C "$LAB/data" LD_PRELOAD="$CACHE/loopback.so" java @"$LAB/hms.args" org.apache.hadoop.hive.metastore.HiveMetaStore -p $((BASE + 98)) ;;
  *) die "no daemon $1" ;;
  esac
}

# ---- configuration -------------------------------------------------------------------------------------------------
p() { echo "<property><name>$1</name><value>$2</value></property>"; }
xml() { { echo '<configuration>'; cat; echo '</configuration>'; } >"$1"; }
conf() {
  local c=$LAB/conf d=$LAB/data k=$LAB/krb x r o=""
  mkdir -p "$c" "$LAB/hive" "$LAB/log" "$LAB/pid" "$d/tmp"
  for x in java.lang java.lang.reflect java.util java.util.concurrent java.util.regex java.io java.net java.nio sun.nio.ch sun.security.action jdk.internal.misc; do
    o="$o --add-opens java.base/$x=ALL-UNNAMED"
  done
  o="$o --add-opens java.security.jgss/sun.security.krb5=ALL-UNNAMED --add-exports java.security.jgss/sun.security.krb5=ALL-UNNAMED"
  o="$o -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -Djava.net.preferIPv4Stack=true -Djava.io.tmpdir=$d/tmp -Dhadoop.home.dir=$LAB -Dhadoop.log.dir=$LAB/log"
  ! is secure || o="$o -Djava.security.krb5.conf=$k/krb5.conf"
  echo "-Xmx${HEAP:-256m} $o -cp $c:$CACHE/classes:$(cat "$CACHE/pom.cp")" >"$LAB/java.args"
  echo "-Xmx400m $o -Dderby.system.home=$d -cp $LAB/hive:$(spark_jars)/*" >"$LAB/hms.args"
  echo "-Xmx400m $o -Dderby.system.home=$d -cp $LAB/hive:$(cat "$CACHE/pom.cp"):$(cat "$CACHE/pom-hms4.cp" 2>/dev/null || true)" >"$LAB/hms4.args"
  printf '%s\n' log4j.rootLogger=INFO,c log4j.appender.c=org.apache.log4j.ConsoleAppender log4j.appender.c.target=System.err \
    log4j.appender.c.layout=org.apache.log4j.PatternLayout 'log4j.appender.c.layout.ConversionPattern=%d{ISO8601} %p %c{2}: %m%n' >"$c/log4j.properties"
  { if is ha; then p fs.defaultFS hdfs://labns; else p fs.defaultFS "hdfs://localhost:$BASE"; fi
    p hadoop.tmp.dir "$d/tmp"; p fs.trash.interval 60
    p hadoop.proxyuser.hive.hosts '*'; p hadoop.proxyuser.hive.groups '*'
    if is secure; then
      p hadoop.security.authentication kerberos; p hadoop.security.authorization true; p hadoop.rpc.protection "${PROT:-privacy}"
    fi; } | xml "$c/core-site.xml"
  { p dfs.replication "${REPL:-2}"; p dfs.blocksize "${BLOCK:-16777216}"; p dfs.namenode.fs-limits.min-block-size 4096
    p dfs.heartbeat.interval 1; p dfs.namenode.heartbeat.recheck-interval 3000; p dfs.namenode.safemode.extension 0
    p dfs.namenode.handler.count 4; p dfs.datanode.handler.count 4; p dfs.namenode.redundancy.interval.seconds 1s
    p dfs.namenode.datanode.registration.ip-hostname-check false
    if is ha; then
      p dfs.nameservices labns; p dfs.ha.namenodes.labns nn1,nn2
      for r in 1 2; do p dfs.namenode.rpc-address.labns.nn$r localhost:$((BASE + r - 1)); p dfs.namenode.http-address.labns.nn$r localhost:$((BASE + 69 + r)); done
      p dfs.namenode.shared.edits.dir "qjournal://localhost:$((BASE + 95))/labns"; p dfs.journalnode.edits.dir "$d/jn"
      p dfs.journalnode.rpc-address localhost:$((BASE + 95)); p dfs.journalnode.http-address localhost:$((BASE + 96))
      p dfs.client.failover.proxy.provider.labns org.apache.hadoop.hdfs.server.namenode.ha.ConfiguredFailoverProxyProvider
      p dfs.ha.fencing.methods 'shell(/bin/true)'; p dfs.ha.tail-edits.period 1
    else
      p dfs.namenode.rpc-address "localhost:$BASE"; p dfs.namenode.http-address localhost:$((BASE + 70))
    fi
    if is secure; then
      for r in namenode datanode journalnode; do p dfs.$r.kerberos.principal hdfs/localhost@$REALM; p dfs.$r.keytab.file "$k/hdfs.keytab"; done
      for r in namenode journalnode; do p dfs.$r.kerberos.internal.spnego.principal HTTP/localhost@$REALM; done
      p dfs.web.authentication.kerberos.principal HTTP/localhost@$REALM; p dfs.web.authentication.kerberos.keytab "$k/hdfs.keytab"
      p dfs.block.access.token.enable true; p dfs.data.transfer.protection "${PROT:-privacy}"; p ignore.secure.ports.for.testing true
      [ -z "${AES:-}" ] || p dfs.encrypt.data.transfer.cipher.suites AES/CTR/NoPadding
    fi; } | xml "$c/hdfs-site.xml"
  { for x in address:20 scheduler.address:21 resource-tracker.address:22 admin.address:23 webapp.address:24; do p "yarn.resourcemanager.${x%:*}" localhost:$((BASE + ${x#*:})); done
    for x in address:25 localizer.address:26 webapp.address:27 collector-service.address:28; do p "yarn.nodemanager.${x%:*}" localhost:$((BASE + ${x#*:})); done
    p yarn.nodemanager.local-dirs "$d/nm"; p yarn.nodemanager.log-dirs "$LAB/log/containers"; p yarn.nodemanager.delete.debug-delay-sec 3600
    p yarn.nodemanager.resource.memory-mb 4096; p yarn.nodemanager.resource.cpu-vcores 8; p yarn.scheduler.minimum-allocation-mb 64
    p yarn.nodemanager.vmem-check-enabled false; p yarn.nodemanager.disk-health-checker.max-disk-utilization-per-disk-percentage 99
    p yarn.nodemanager.admin-env "LAB_DAEMON=$LAB,HADOOP_CONF_DIR=$c$(! is secure || echo ",KRB5_CONFIG=$k/krb5.conf")"
    p yarn.resourcemanager.am.max-attempts 1; p yarn.nodemanager.sleep-delay-before-sigkill.ms 2000; p yarn.resourcemanager.connect.max-wait.ms 20000; p yarn.resourcemanager.connect.retry-interval.ms 1000
    if is secure; then
      for r in resourcemanager nodemanager; do p yarn.$r.principal yarn/localhost@$REALM; p yarn.$r.keytab "$k/hdfs.keytab"; done
    fi; } | xml "$c/yarn-site.xml"
  { p yarn.scheduler.capacity.root.queues default,etl; p yarn.scheduler.capacity.root.default.capacity 50; p yarn.scheduler.capacity.root.etl.capacity 50
    for x in default etl; do p yarn.scheduler.capacity.root.$x.maximum-capacity 100; p yarn.scheduler.capacity.root.$x.user-limit-factor 2; done
    p yarn.scheduler.capacity.maximum-am-resource-percent 0.5; } | xml "$c/capacity-scheduler.xml"
  ln -sf "$c/core-site.xml" "$c/hdfs-site.xml" "$LAB/hive/"
  { p javax.jdo.option.ConnectionURL "jdbc:derby:;databaseName=$d/metastore;create=true"; p datanucleus.schema.autoCreateAll true
    p hive.metastore.schema.verification false; p hive.async.log.enabled false; p hive.metastore.uris "thrift://localhost:$((BASE + 98))"
    p hive.metastore.warehouse.dir /user/hive/warehouse; p metastore.thrift.bind.host 127.0.0.1
    [ -z "${FRAMED:-}" ] || p hive.metastore.thrift.framed.transport.enabled true
    if is secure; then
      p hive.metastore.sasl.enabled true; p hive.metastore.kerberos.principal hive/localhost@$REALM; p hive.metastore.kerberos.keytab.file "$k/hive.keytab"
    fi; } | xml "$LAB/hive/hive-site.xml"
  printf '%s\n' 'appender.c.type=Console' 'appender.c.name=c' 'appender.c.target=SYSTEM_ERR' 'appender.c.layout.type=PatternLayout' \
    'appender.c.layout.pattern=%d{ISO8601} %p %c{2}: %m%n' 'rootLogger.level=INFO' 'rootLogger.appenderRef.c.ref=c' | tee "$LAB/hive/hive-log4j2.properties" >"$LAB/hive/metastore-log4j2.properties"
  ln -sf hive-site.xml "$LAB/hive/metastore-site.xml"; ln -sf "$c/log4j.properties" "$LAB/hive/"
}
kdc() { # a real MIT KDC
  local k=$LAB/krb u
  mkdir -p "$k"
  printf '%s\n' '[libdefaults]' " default_realm=$REALM" ' dns_lookup_kdc=false' ' dns_lookup_realm=false' ' rdns=false' ' dns_canonicalize_hostname=false' \
    ' udp_preference_limit=1' '[realms]' " $REALM={" "  kdc=127.0.0.1:$((BASE + 97))" ' }' '[domain_realm]' " localhost=$REALM" >"$k/krb5.conf"
  printf '%s\n' '[kdcdefaults]' " kdc_listen=127.0.0.1:$((BASE + 97))" " kdc_tcp_listen=127.0.0.1:$((BASE + 97))" '[realms]' " $REALM={" "  database_name=$k/principal" \
    "  key_stash_file=$k/stash" "  acl_file=$k/acl" '  supported_enctypes=aes256-cts-hmac-sha1-96:normal aes128-cts-hmac-sha1-96:normal' ' }' >"$k/kdc.conf"
  export KRB5_CONFIG=$k/krb5.conf KRB5_KDC_PROFILE=$k/kdc.conf PATH=$PATH:/usr/sbin
  { kdb5_util create -s -r $REALM -P labpw
    { for u in hdfs/localhost HTTP/localhost yarn/localhost hive/localhost spot; do echo "addprinc -randkey $u"; done
      echo "ktadd -norandkey -k $k/hdfs.keytab hdfs/localhost HTTP/localhost yarn/localhost"
      echo "ktadd -norandkey -k $k/hive.keytab hive/localhost"; echo "ktadd -norandkey -k $k/spot.keytab spot"; } | kadmin.local; } >"$LAB/log/kadmin.log" 2>&1
  startd kdc; waitport kdc $((BASE + 97))
  kinit -c "$k/cc" -kt "$k/spot.keytab" spot
  kinit -c "$k/cc-hdfs" -kt "$k/hdfs.keytab" hdfs/localhost
}
free_base() {
  local b i used
  used=" $(ss -Htln | awk '{ sub(/.*:/, "", $4); print $4 }' | tr '\n' ' ') "
  for i in $(seq 0 59); do
    b=$((18000 + ((i + $$) % 60) * 200))
    for p in $(seq $b $((b + 99))); do case $used in *" $p "*) continue 2 ;; esac; done
    echo $b; return
  done
  die "no free ports"
}

# ---- commands ------------------------------------------------------------------------------------------------------
load() {
  [ -n "${LAB:-}" ] && [ -f "$LAB/state" ] || die "LAB is not a running lab"
  . "$LAB/state"
  unset HADOOP_USER_NAME HADOOP_PROXY_USER HADOOP_TOKEN_FILE_LOCATION # Hadoop's own commands run as the superuser
  ! is secure || export KRB5_CONFIG=$LAB/krb/krb5.conf KRB5CCNAME=$LAB/krb/cc-hdfs
}
hadoop_fs() { # USER ARGS: see FsShells.java
  local user=$1 out err code; shift
  out=$(mktemp "$LAB/data/tmp/out.XXXXXX"); err=$(mktemp "$LAB/data/tmp/err.XXXXXX")
  exec 3<>"/dev/tcp/127.0.0.1/$((BASE + 99))"
  printf '%s\n' "$user" "$out" "$err" $# "$@" >&3
  read -r code <&3 || die "no answer: $LAB/log/fs.log"
  exec 3>&-
  cat "$out"; cat "$err" >&2; rm "$out" "$err"
  return "$code"
}
as_spot() { if is secure; then export KRB5CCNAME=$LAB/krb/cc; else export HADOOP_USER_NAME=spot; fi; }
env_() {
  echo "export LAB=$LAB HADOOP_CONF_DIR=$LAB/conf HDFS_URL=$(is ha && echo hdfs://labns || echo "hdfs://localhost:$BASE")"
  echo "export NN_HTTP=http://localhost:$((BASE + 70)) HIVE_CONF_DIR=$LAB/hive"
  if is secure; then echo "export KRB5_CONFIG=$LAB/krb/krb5.conf KRB5CCNAME=$LAB/krb/cc KEYTAB=$LAB/krb/spot.keytab PRINCIPAL=spot@$REALM"; fi
  if [ "$HMS" != 0 ]; then echo "export HMS_URI=thrift://localhost:$((BASE + 98))"; fi
  if [ "$YARN" = 1 ]; then echo "export RM_HTTP=http://localhost:$((BASE + 24))"; fi
}
live() { curl -fs -m 5 --noproxy '*' "http://localhost:$((BASE + 70))/jmx?qry=Hadoop:service=NameNode,name=FSNamesystemState" | grep -q "\"NumLiveDataNodes\" : $1"; }
up() {
  local i HMS=0 YARN=0 a
  MODE=${1:-simple}; shift || true
  case $MODE in simple | ha | secure | secure-ha) ;; *) die "mode: simple, ha, secure or secure-ha" ;; esac
  for a; do case $a in --hms) HMS=2 ;; --hms4) HMS=4; cp_ok pom-hms4 || die "run lab.sh prepare first" ;; --yarn) YARN=1 ;; *) die "unknown option $a" ;; esac; done
  cp_ok pom || die "run lab.sh prepare first"
  LAB=${LAB:-$(mktemp -d "${TMPDIR:-/tmp}/lab.XXXXXX")}; mkdir -p "$LAB"; LAB=$(cd "$LAB" && pwd)
  [ ! -e "$LAB/state" ] && [ ! -e "$LAB/data" ] || die "$LAB is in use"
  BASE=${BASE:-$(free_base)}; DNS=${DNS:-3}
  printf 'MODE=%s BASE=%s DNS=%s HMS=%s YARN=%s\n' "$MODE" "$BASE" "$DNS" "$HMS" "$YARN" >"$LAB/state"
  export LAB
  trap 'say "up failed, logs in $LAB/log"; KEEP=1 down' EXIT
  conf
  ! is secure || kdc
  load
  startd fs
  if is ha; then
    startd jn; waitport jn $((BASE + 95))
    JAVA $NN -D dfs.ha.namenode.id=nn1 -D dfs.namenode.name.dir="file://$LAB/data/nn1" -format -force -nonInteractive >"$LAB/log/format.log" 2>&1 || die "format failed: $LAB/log/format.log"
    startd nn1; for i in $(seq "$DNS"); do startd dn$i; done; waitport nn1 "$BASE"
    JAVA $NN -D dfs.ha.namenode.id=nn2 -D dfs.namenode.name.dir="file://$LAB/data/nn2" -bootstrapStandby -force -nonInteractive >"$LAB/log/bootstrap.log" 2>&1 || die "bootstrap failed: $LAB/log/bootstrap.log"
    startd nn2; JAVA org.apache.hadoop.hdfs.tools.DFSHAAdmin -transitionToActive --forceactive nn1 >"$LAB/log/failover.log" 2>&1; waitport nn2 $((BASE + 1))
  else
    for i in $(seq "$DNS"); do startd dn$i; done
    JAVA $NN -D dfs.namenode.name.dir="file://$LAB/data/nn" -format -force -nonInteractive >"$LAB/log/format.log" 2>&1 || die "format failed: $LAB/log/format.log"
    startd nn; waitport nn "$BASE"
  fi
  for i in $(seq "$DNS"); do waitport dn$i $((BASE + 60 + i)); done
  for i in $(seq 120); do live "$DNS" && break; [ "$i" != 120 ] || die "datanodes did not register"; sleep .25; done
  [ $YARN = 0 ] || { startd rm; startd nm; }
  [ $HMS = 0 ] || startd hms
  waitport fs $((BASE + 99))
  hadoop_fs "" -mkdir -p /tmp /user/spot /user/hive -- -chown spot:spot /user/spot -- -chmod 1777 /tmp /user/hive >"$LAB/log/mkdir.log" 2>&1
  [ $YARN = 0 ] || { waitport rm $((BASE + 20)); waitport nm $((BASE + 25)); }
  [ $HMS = 0 ] || waitport hms $((BASE + 98))
  trap - EXIT
  env_
}
strays() { grep -lzx "LAB_DAEMON=$LAB" /proc/[0-9]*/environ 2>/dev/null | cut -d/ -f3 || true; } # containers of a killed NodeManager
down() {
  local f q i
  for f in "$LAB"/pid/*; do q=$(pid "${f##*/}") || continue; kill -CONT "$q" && kill "$q" || true; done
  for i in $(seq 20); do [ -n "$(strays)" ] || break; sleep .25; done
  for q in $(strays); do kill -KILL "$q" 2>/dev/null || true; done
  rm -f "$LAB/state" "$LAB"/pid/*
  if [ -n "${KEEP:-}" ]; then return; fi
  rm -rf "$LAB"/{conf,hive,log,pid,data,krb,java.args,hms.args,hms4.args}
  rmdir "$LAB" 2>/dev/null || true
}
failover() {
  local other=nn1 q
  [ "$1" != nn1 ] || other=nn2
  # a live active is demoted first; a dead or stopped one is passed over (the journal fences it)
  if q=$(pid $other) && ! grep -q '^State:.*T' "/proc/$q/status"; then JAVA org.apache.hadoop.hdfs.tools.DFSHAAdmin -transitionToStandby $other >"$LAB/log/failover.log" 2>&1; fi
  JAVA org.apache.hadoop.hdfs.tools.DFSHAAdmin -transitionToActive --forceactive "$1" >>"$LAB/log/failover.log" 2>&1
}
cmd=${1:-}; shift || true
case $cmd in
prepare) prepare; exit ;;
up) up "$@"; exit ;;
'' | help | -h) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit ;;
esac
load
case $cmd in
env) env_ ;;
kill) signal KILL "$1" ;; stop) signal STOP "$1" ;; cont) signal CONT "$1" ;; start) [ "$1" != hms ] || freeport $((BASE + 98)); startd "$1"; [ "$1" != hms ] || waitport hms $((BASE + 98)) ;;
failover) failover "$1" ;;
state) for n in nn1 nn2; do echo "$n $(JAVA org.apache.hadoop.hdfs.tools.DFSHAAdmin -getServiceState $n 2>/dev/null || echo unreachable)"; done ;;
fs) hadoop_fs "" "$@" ;;
fs-as-spot) hadoop_fs spot "$@" ;;
admin) JAVA org.apache.hadoop.hdfs.tools.DFSAdmin "$@" ;;
fsck) JAVA org.apache.hadoop.hdfs.tools.DFSck "$@" ;;
cli) JAVA "$@" ;;
token) KRB5CCNAME=$LAB/krb/cc JAVA org.apache.hadoop.hdfs.tools.DelegationTokenFetcher --renewer spot "$1" ;;
yarn) JAVA org.apache.hadoop.yarn.client.cli.ApplicationCLI "$@" ;;
run-on-yarn) as_spot; LAB_DAEMON=$LAB JAVA YarnRun "$@" ;;
ps) for f in "$LAB"/pid/*; do n=${f##*/}; q=$(pid "$n") && echo "$n $q $(awk '/VmRSS/ { print int($2/1024) }' "/proc/$q/status") MB $(sed -n 's/^State:\t//p' "/proc/$q/status")" || echo "$n dead"; done ;;
down) down ;;
*) die "unknown command $cmd" ;;
esac
