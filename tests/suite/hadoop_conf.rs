//! Hadoop's configuration files as its own clients read them.

use std::collections::BTreeMap;
use std::path::Path;

use klieg::config::ConfError;
use klieg::config::HadoopConf;

fn write(folder: &Path, name: &str, properties: &str) {
    let text = format!(
        "<?xml version='1.0'?>\n<configuration xmlns:xi='http://www.w3.org/2001/XInclude'>{properties}</configuration>"
    );
    std::fs::write(folder.join(name), text).unwrap();
}

fn property(name: &str, value: &str, more: &str) -> String {
    format!("<property><name> {name}\n</name><value>{value}</value>{more}</property>")
}

fn conf(folder: &Path) -> HadoopConf {
    let environment = [("USER", "spot"), ("HOME", "/home/spot"), ("EMPTY", "")];
    let environment: BTreeMap<String, String> = environment
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into();
    let mut conf = HadoopConf::new(environment);
    conf.add_folder(folder).unwrap();
    conf
}

#[test]
fn later_files_win_unless_the_earlier_is_final() {
    let folder = tempfile::tempdir().unwrap();
    let core = [
        property("a", "1", ""),
        property("b", "1", "<final>true</final>"),
        "<property name='c' value='by attribute'/>".to_owned(),
        property("empty", "", ""),
    ];
    write(folder.path(), "core-site.xml", &core.concat());
    let hdfs = [property("a", "2", ""), property("b", "2", "")];
    write(folder.path(), "hdfs-site.xml", &hdfs.concat());
    let mut conf = conf(folder.path());
    let get = |conf: &HadoopConf, key: &str| conf.get(key).unwrap_or_default();
    assert_eq!([get(&conf, "a"), get(&conf, "b")], ["2", "1"]);
    assert_eq!(get(&conf, "c"), "by attribute");
    assert_eq!(conf.get("empty").as_deref(), Some(""));
    assert_eq!(conf.get("missing"), None);
    assert!(conf.origin("a").unwrap().ends_with("hdfs-site.xml"));
    // The command line lies over what is final.
    conf.set("b", " 3 ", "command line");
    assert_eq!(
        (get(&conf, "b").as_str(), conf.origin("b")),
        ("3", Some("command line"))
    );
}

#[test]
fn variables_come_from_environment_system_and_other_keys() {
    let folder = tempfile::tempdir().unwrap();
    let core = [
        property("ns", "prod", ""),
        property("dfs.nameservices", "${ns}", ""),
        property("address", "${dfs.nameservices}-nn1:8020", ""),
        property("home", "${user.home}/${user.name}", ""),
        property("set", "${env.USER:-nobody} ${env.USER-nobody}", ""),
        property("unset", "${env.NOPE:-nobody} ${env.NOPE-nobody}", ""),
        property("blank", "[${env.EMPTY:-filled}] [${env.EMPTY-filled}]", ""),
        property("unknown", "${nope} and ${ns}", ""),
        property("circle", "${circle}", ""),
        property("open", "${ns", ""),
    ];
    write(folder.path(), "core-site.xml", &core.concat());
    let conf = conf(folder.path());
    for (key, wanted) in [
        ("address", "prod-nn1:8020"),
        ("home", "/home/spot/spot"),
        ("set", "spot spot"),
        ("unset", "nobody nobody"),
        ("blank", "[filled] []"),
        ("unknown", "${nope} and prod"),
        ("circle", "${circle}"),
        ("open", "${ns"),
    ] {
        assert_eq!(conf.get(key).as_deref(), Some(wanted), "{key}");
    }
}

#[test]
fn includes_are_followed_and_damage_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let core = [
        "<xi:include href='shared.xml'/>",
        "<xi:include href='gone.xml'><xi:fallback><property><name>f</name><value>back</value></property></xi:fallback></xi:include>",
    ];
    write(folder.path(), "core-site.xml", &core.concat());
    write(folder.path(), "shared.xml", &property("s", "shared", ""));
    let conf = conf(folder.path());
    assert_eq!(conf.get("s").as_deref(), Some("shared"));
    assert_eq!(conf.get("f").as_deref(), Some("back"));
    let fails = |name: &str| HadoopConf::new(BTreeMap::new()).add_file(&folder.path().join(name));
    write(folder.path(), "loop.xml", "<xi:include href='loop.xml'/>");
    assert!(matches!(fails("loop.xml"), Err(ConfError::Includes { .. })));
    write(folder.path(), "lost.xml", "<xi:include href='gone.xml'/>");
    assert!(matches!(fails("lost.xml"), Err(ConfError::Read { .. })));
    std::fs::write(folder.path().join("cut.xml"), "<configuration></property>").unwrap();
    let error = fails("cut.xml").unwrap_err().to_string();
    assert!(
        error.contains("cut.xml: ") && error.contains("1:"),
        "{error}"
    );
}
