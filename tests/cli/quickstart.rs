//! The example that a newcomer runs first.

use crate::support::{Place, row};
use std::path::Path;

/// A copy on a port of its own, because other things run on this machine too.
fn copy_quickstart(place: &Place) -> String {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart");
    for name in ["web.py", "reader.py"] {
        std::fs::copy(from.join(name), place.project().join(name)).unwrap();
    }
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = std::fs::read_to_string(from.join("processes.yaml")).unwrap();
    assert!(file.contains("8701"));
    file.replace("8701", &port.to_string())
}

#[test]
fn the_quickstart_is_valid_as_it_stands() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/processes.yaml");
    Place::new().run(&["check", "--strict", file.to_str().unwrap()]).code(0);
}

#[test]
fn the_quickstart_runs() {
    let place = Place::new();
    let file = copy_quickstart(&place);
    let _up = place.up(&file);
    place.run(&["wait", "web", "reader", "worker@*", "--timeout", "25s"]).code(0);
    assert_eq!(row(&place, "web")["health"], "healthy");
    let started = |name: &str| row(&place, name)["started"].as_str().unwrap().to_owned();
    assert!(started("web") < started("reader"), "the reader waits for the web server");
}
