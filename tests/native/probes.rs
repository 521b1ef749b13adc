//! Health checks against servers that behave in every way but the right one.

use crate::helper::{Children, network};
use crate::world::*;
use provost::core::event::Event;
use provost::core::ids::{ProbeId, Run};
use provost::core::spec::{Check, HealthCheck, Text};
use provost::net;
use provost::probe::Prober;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SHORT: Duration = Duration::from_millis(300);

/// Asks as the daemon does, and over the network also by way of `provost-net`: both say the same.
async fn ask(check: Check, timeout: Duration) -> Result<(), String> {
    let outcome = ask_here(check.clone(), timeout).await;
    let asked = match check {
        Check::Http(url) => net::check::Check::Http(url.rendered(0)),
        Check::Tcp(address) => net::check::Check::Tcp(address.rendered(0)),
        _ => return outcome,
    };
    assert_eq!(network(Children::default()).check(asked, timeout).await, outcome);
    outcome
}

async fn ask_here(check: Check, timeout: Duration) -> Result<(), String> {
    let mut world = World::new();
    let prober = Prober::new(world.facts.clone(), world.backend.clone());
    let check = Arc::new(HealthCheck { timeout, ..HealthCheck::new(check) });
    prober.probe(&instance(), Run(7), ProbeId(9), check, &Arc::new(shell("true")));
    match world.event().await {
        Event::Probed { run: Run(7), probe: ProbeId(9), outcome, .. } => outcome,
        other => panic!("{other:?}"),
    }
}

async fn http(url: &str, timeout: Duration) -> Result<(), String> {
    ask(Check::Http(Text::new(url)), timeout).await
}

/// A server that does this with each connection; its address.
async fn server<F>(behaviour: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(behaviour(stream));
        }
    });
    address
}

async fn read_request(stream: &mut TcpStream) -> String {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8(request).unwrap()
}

async fn answering(answer: &'static str) -> String {
    server(move |mut stream| async move {
        read_request(&mut stream).await;
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn a_good_answer_is_healthy_and_others_say_what_they_are() {
    let good = answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    assert_eq!(http(&format!("http://{good}/health"), DEADLINE).await, Ok(()));
    let bad = answering("HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(http(&format!("http://{bad}/"), DEADLINE).await, Err("HTTP 500".into()));
    let junk = answering("SSH-2.0-server\r\n").await;
    let text = http(&format!("http://{junk}/"), DEADLINE).await.unwrap_err();
    assert!(text.starts_with("no valid HTTP"), "{text}");
    let silent = answering("").await;
    let text = http(&format!("http://{silent}/"), DEADLINE).await.unwrap_err();
    assert_eq!(text, "the connection was closed without an answer");
}

#[tokio::test]
async fn the_request_is_a_plain_get() {
    let (sender, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let address = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(read_request(&mut stream).await).unwrap();
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    assert_eq!(http(&format!("http://{address}/health?deep=1"), DEADLINE).await, Ok(()));
    for _ in 0..2 {
        let request = requests.recv().await.unwrap();
        assert!(request.starts_with("GET /health?deep=1 HTTP/1.1\r\n"), "{request}");
        assert!(request.contains(&format!("host: {address}\r\n")), "{request}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    static FOLLOWED: AtomicU32 = AtomicU32::new(0);
    let other = server(|mut stream| async move {
        FOLLOWED.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
    })
    .await;
    let address = server(move |mut stream| {
        let other = other.clone();
        async move {
            read_request(&mut stream).await;
            let answer = format!("HTTP/1.1 302 Found\r\nLocation: http://{other}/\r\n\r\n");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    assert_eq!(http(&format!("http://{address}/"), DEADLINE).await, Err("HTTP 302".into()));
    assert_eq!(FOLLOWED.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn one_that_never_answers_is_given_up() {
    let address = server(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending().await
    })
    .await;
    let text = http(&format!("http://{address}/"), SHORT).await.unwrap_err();
    assert_eq!(text, "no answer within 300ms");
}

/// Whatever trickles, head or body, does not put off the deadline.
#[tokio::test]
async fn one_that_trickles_is_given_up() {
    for begin in
        ["HTTP/1.1 200 OK\r\nX-Padding: ", "HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"]
    {
        let address = server(move |mut stream| async move {
            read_request(&mut stream).await;
            let _ = stream.write_all(begin.as_bytes()).await;
            let mut tick = tokio::time::interval(Duration::from_millis(20));
            while stream.write_all(b"x").await.is_ok() {
                tick.tick().await;
            }
        })
        .await;
        let text = http(&format!("http://{address}/"), SHORT).await.unwrap_err();
        assert_eq!(text, "no answer within 300ms");
    }
}

#[tokio::test]
async fn a_huge_body_is_not_read() {
    let (sender, mut sent) = tokio::sync::mpsc::unbounded_channel();
    let address = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            read_request(&mut stream).await;
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n";
            stream.write_all(head.as_bytes()).await.unwrap();
            let mut len = 0_u64;
            while let Ok(n) = stream.write(&[b'x'; 65536]).await {
                len += n as u64;
            }
            sender.send(len).unwrap();
        }
    })
    .await;
    assert_eq!(http(&format!("http://{address}/"), DEADLINE).await, Ok(()));
    for _ in 0..2 {
        // What the sockets hold, and no more.
        let sent = in_time(sent.recv()).await.unwrap();
        assert!(sent < 64 * 1024 * 1024, "{sent}");
    }
}

#[tokio::test]
async fn every_address_of_a_name_is_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let check = Check::Tcp(Text::new(&format!("localhost:{port}")));
    assert_eq!(ask(check.clone(), DEADLINE).await, Ok(()));
    drop(listener);
    let text = ask(check, DEADLINE).await.unwrap_err();
    assert!(text.starts_with("connection refused ("), "{text}");
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
}

#[tokio::test]
async fn a_refused_connection_names_the_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let text = http(&format!("http://{address}/"), DEADLINE).await.unwrap_err();
    assert_eq!(text, format!("connection refused ({address})"));
}

async fn exec(line: &str, timeout: Duration) -> Result<(), String> {
    let argv = ["/bin/sh", "-c", line].map(Text::new);
    ask(Check::Exec(argv.into()), timeout).await
}

#[tokio::test]
async fn a_command_says_how_it_failed_and_not_what_it_wrote() {
    assert_eq!(exec("exit 0", DEADLINE).await, Ok(()));
    assert_eq!(exec("exit 3", DEADLINE).await, Err("exited with code 3".into()));
    assert_eq!(exec("echo one; exit 1", DEADLINE).await, Err("exited with code 1".into()));
    let text = exec("kill -9 $$", DEADLINE).await.unwrap_err();
    assert_eq!(text, "was ended by SIGKILL");
    let check = Check::Exec([Text::new("/no/such/check")].into());
    let text = ask(check, DEADLINE).await.unwrap_err();
    assert_eq!(text, "executing /no/such/check: No such file or directory");
}

#[tokio::test]
async fn a_command_that_never_ends_or_never_is_silent_is_given_up() {
    assert_eq!(exec("sleep 1000", SHORT).await, Err("no answer within 300ms".into()));
    assert_eq!(exec("exec yes", SHORT).await, Err("no answer within 300ms".into()));
}

#[tokio::test]
async fn a_command_runs_in_the_context_of_the_process() {
    let mut world = World::new();
    let mut spec = shell("true");
    spec.exec.cwd = "/usr".into();
    let own = [("CONTEXT".to_owned(), provost::core::spec::Secret(Text::new("here")))];
    spec.exec.env = Arc::new(own.into());
    if is_root() {
        spec.exec.user = Some("nobody".into());
    }
    let prober = Prober::new(world.facts.clone(), world.backend.clone());
    let line = "printf '%s %s %s\\033[2J\\n\\n' $PWD $CONTEXT $(id -un); exit 1";
    let check = Check::Exec(["/bin/sh", "-c", line].map(Text::new).into());
    let check = Arc::new(HealthCheck { timeout: DEADLINE, ..HealthCheck::new(check) });
    prober.probe(&instance(), Run(1), ProbeId(1), check, &Arc::new(spec));
    let Event::Probed { outcome, .. } = world.event().await else { panic!() };
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
    let user = if is_root() { "nobody" } else { &user };
    assert_eq!(outcome, Err("exited with code 1".into()));
    // Made visible, so that no terminal obeys it.
    let printed = provost::backend::Backend::command_output(
        &*world.backend,
        &instance(),
        provost::backend::Purpose::Check,
    )
    .unwrap();
    assert_eq!(*printed, *format!("/usr here {user}\\x1b[2J"));
}
