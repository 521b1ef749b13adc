//! Whether the user database answers at once: from this machine's own file (nsswitch.conf(5),
//! passwd(5)). It may as well be on a server, and then a start asks it in a thread, which takes longer
//! than to start most processes.

use std::fs;
use std::path::Path;

/// Whoever answers from memory is asked before any file (nscd(8)), and may not answer.
const CACHE: &str = "/run/nscd/socket";

/// Whether who this user is stands in this machine's own file, and nobody is asked before it.
pub(super) fn is_local(user: &str) -> bool {
    let databases = match fs::read_to_string("/etc/nsswitch.conf") {
        Ok(text) => text,
        // Without one the files are all there is.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(_) => return false,
    };
    asks_files_first(&databases)
        && !Path::new(CACHE).exists()
        && fs::read_to_string("/etc/passwd").is_ok_and(|users| has_entry(&users, user))
}

/// Whether the file is asked first, and what it says is what holds.
fn asks_files_first(databases: &str) -> bool {
    let lines = databases.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let mut services = lines.filter_map(|line| line.strip_prefix("passwd:"));
    let Some(services) = services.next() else { return true };
    let mut words = services.split_whitespace();
    // What is in brackets may have others asked all the same.
    words.next() == Some("files") && words.next().is_none_or(|next| !next.starts_with('['))
}

/// Whether there is a line for this name or number.
fn has_entry(users: &str, user: &str) -> bool {
    let is_number = user.parse::<u32>().is_ok();
    users.lines().any(|line| {
        let mut fields = line.split(':');
        let (name, number) = (fields.next(), fields.nth(1));
        if is_number { number == Some(user) } else { name == Some(user) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_asked_first_where_it_says_so_or_nothing() {
        let first =
            ["", "group: ldap\n", "passwd: files systemd\n", "# passwd: ldap\npasswd:files"];
        for databases in first {
            assert!(asks_files_first(databases), "{databases:?}");
        }
        let later = [
            "passwd: ldap files\n",
            "passwd: compat\n",
            "passwd: files [SUCCESS=merge] ldap\n",
            "passwd:\n",
            "hosts: files\npasswd: sss files\n",
        ];
        for databases in later {
            assert!(!asks_files_first(databases), "{databases:?}");
        }
    }

    #[test]
    fn a_user_is_local_by_its_name_or_by_its_number() {
        let users = "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/srv:/bin/false\n+\n";
        for here in ["root", "web", "0", "33"] {
            assert!(has_entry(users, here), "{here}");
        }
        for elsewhere in ["we", "webs", "34", "x", "", "+web"] {
            assert!(!has_entry(users, elsewhere), "{elsewhere}");
        }
    }

    #[test]
    fn nobody_is_local_who_does_not_exist() {
        assert!(!is_local("no-such-user"));
    }
}
