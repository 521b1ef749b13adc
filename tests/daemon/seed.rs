//! The file of the first seed document, with real servers.

use crate::support::{Daemon, free_port};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

/// The three servers as the document has them; `@N@` are their ports.
const SERVERS: &str = r#"
# Process Management Configuration
processes:
  # Example Server 1
  example-server-1:
    enabled: true
    name: "Example Server 1"
    description: "First example application server"
    command: "node"
    args: ["index.ts","--config","/path/to/example-config-1"]
    cwd: "/path/to/example-app-1"
    env:
      NODE_ENV: "production"
      PORT: "3001"
    pidFile: "./pids/example-server-1.pid"
    logFile: "./logs/example-server-1.log"
    restartPolicy:
      maxAttempts: 3
      delay: 5000
    healthCheck:
      enabled: true
      url: "http://localhost:3001/health"
      interval: 30000
      timeout: 5000

  # Example Server 2
  example-server-2:
    enabled: true
    name: "Example Server 2"
    description: "Second example application server"
    command: "node"
    args: ["index.ts","--config","/path/to/example-config-2"]
    cwd: "/path/to/example-app-2"
    env:
      NODE_ENV: "production"
      PORT: "3002"
    pidFile: "./pids/example-server-2.pid"
    logFile: "./logs/example-server-2.log"
    restartPolicy:
      maxAttempts: 3
      delay: 5000
    healthCheck:
      enabled: true
      url: "http://localhost:3002/health"
      interval: 30000
      timeout: 5000

  # Example Server 3
  example-server-3:
    enabled: true
    name: "Example Server 3"
    description: "Third example application server"
    command: "node"
    args: ["index.ts","--config","/path/to/example-config-3"]
    cwd: "/path/to/example-app-3"
    env:
      NODE_ENV: "production"
      PORT: "3003"
    pidFile: "./pids/example-server-3.pid"
    logFile: "./logs/example-server-3.log"
    restartPolicy:
      maxAttempts: 3
      delay: 5000
    healthCheck:
      enabled: true
      url: "http://localhost:3003/health"
      interval: 30000
      timeout: 5000
"#;

/// A real server in the language that the machine has.
const SERVER: &str = r#"
import http.server, os, sys

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = 200 if self.path == "/health" else 404
        body = (os.environ["PORT"] + " " + " ".join(sys.argv[1:])).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

print("listening", flush=True)
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(b"GET /health HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[tokio::test]
async fn the_three_servers_run_and_are_checked() {
    let ports = [free_port(), free_port(), free_port()];
    // Only what must be: where the applications are, what runs them, and ports that are free here.
    let mut yaml = SERVERS
        .replace("/path/to/", "@DIR@/")
        .replace("\"node\"", "\"python3\"")
        .replace("index.ts", "index.py");
    for (n, port) in ports.iter().enumerate() {
        yaml = yaml.replace(&format!("300{}", n + 1), &port.to_string());
    }
    let daemon = Daemon::prepare(|dir| {
        for n in 1..=3 {
            let app = dir.join(format!("example-app-{n}"));
            fs::create_dir(&app).unwrap();
            fs::write(app.join("index.py"), SERVER).unwrap();
        }
    })
    .with(&yaml);
    let names: Vec<String> = (1..=3).map(|n| format!("example-server-{n}@0")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let status = daemon.until_running(&names).await;
    for (n, port) in ports.iter().enumerate() {
        let process = &status[names[n]];
        assert_eq!(process.health, "healthy");
        assert_eq!(process.display_name, format!("Example Server {}", n + 1));
        let answer = get(*port);
        assert!(answer.contains(&format!("{port} --config")), "{answer}");
        let file =
            |kind: &str| daemon.path().join(format!("{kind}s/example-server-{}.{kind}", n + 1));
        let pid = fs::read_to_string(file("pid")).unwrap();
        assert_eq!(pid.trim().parse(), Ok(process.pid.unwrap()));
        assert!(fs::read_to_string(file("log")).unwrap().contains("listening"));
    }

    // "Modifying an Existing Process": one variable more.
    let first = format!("      PORT: \"{}\"\n", ports[0]);
    daemon.save(&yaml.replacen(&first, &format!("{first}      DEBUG: \"true\"\n"), 1));
    daemon.until_generation(2).await;
    let after = daemon.until_running(&names).await;
    assert_ne!(after[names[0]].pid, status[names[0]].pid);
    assert_eq!(after[names[0]].environment_names, ["DEBUG", "NODE_ENV", "PORT"]);
    for name in &names[1..] {
        assert_eq!(after[*name].pid, status[*name].pid);
    }

    // "Adding a New Process" and "Removing a Process".
    fs::create_dir(daemon.path().join("app4")).unwrap();
    fs::write(daemon.path().join("app4/index.js"), "import time\ntime.sleep(1000)\n").unwrap();
    let third = yaml.find("  # Example Server 3").unwrap();
    let added = "  example-server-4:\n    enabled: true\n    name: \"Example Server 4\"\n    \
                 command: \"python3\"\n    args: [\"index.js\"]\n    cwd: \"./app4\"\n";
    daemon.save(&format!("{}{added}", &yaml[..third]));
    daemon.until_generation(3).await;
    let last = daemon.until_running(&["example-server-4@0"]).await;
    assert!(!last.contains_key(names[2]));
    assert_eq!(last[names[1]].pid, status[names[1]].pid);
    assert!(TcpStream::connect(("127.0.0.1", ports[2])).is_err());
    assert!(!daemon.path().join("pids/example-server-3.pid").exists());
}
