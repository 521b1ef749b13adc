//! The numbers by which the journal knows what kind of thing an entry tells of. `journalctl -x` finds
//! the explanation in the catalog by them; a kind keeps its number for good.

/// Each kind of event with its number (systemd.journal-fields(7), `MESSAGE_ID=`).
const IDS: &[(&str, &str)] = &[
    ("starting", "10448c705c95458089e8fdc5b3d9f251"),
    ("started", "594d6fa2566e453cb1f51d74e423a204"),
    ("ready", "4a3f3863f934408f99f337807f534388"),
    ("spawn-failed", "ab09262413f3471da1d4be2cb9c8d24e"),
    ("start-timed-out", "4ea43b6972e5498ab06188fe05936a94"),
    ("exited", "05bff83808f44745b6f2c39fcfebb0fb"),
    ("stopping", "3b3d4cd7556e411ab2427e5a0c10baf0"),
    ("killing", "2fe05f13d85445579684630cf055f36b"),
    ("stopped", "eff5b864eb084a18834b67e9dcff1452"),
    ("backing-off", "666d02c46a45402d96b4db3d9a14f287"),
    ("gave-up", "a8713fcda47e4918b1bd6b37b974bcf1"),
    ("completed", "86a84cc75dce4c59bfb58c8fa2485f29"),
    ("check-failed", "86a15334f0104662a5cae823da94648f"),
    ("healthy", "196c6436e2f44d6bbd0d1657a904ff87"),
    ("unhealthy", "5e42a87da4e44c659dd02bea9c3a3e6b"),
    ("waiting", "1ce78056117c414b855dd2a6a34cf62c"),
    ("keeps-run", "9771591d1bfe4188b45d8eb5fab39e67"),
    ("overlaps", "85c3b67c3e08496dae54fa1a0fadbe59"),
    ("fell-back", "866936f8911f4b74b3dfbc664b6b011e"),
    ("taken-back", "65399959984b44d49b60a7facb9424a4"),
    ("reload-started", "ba333da76d4e442895d89133e4f6f9d5"),
    ("reload-finished", "680ee79250d5442d8ba901ee05e45b55"),
    ("took-over", "b80ee915e6fe4ceea3290ec5af2c4d28"),
    ("kept", "e1103e04a479493589f283aa425bdf7a"),
    ("shutting-down", "b437f009249443798f5cc27eb2b74cb7"),
    ("still-there", "a64c538e40274b6e9e53e9b96d0e1a2c"),
    ("config-rejected", "903e9d9255c34344a93a97aae3e34d29"),
    ("config-valid", "02d672766eab4bb2bf053432aa816509"),
    ("config-warning", "ede3a9737d7f4be692dc77d32b7d6ee5"),
    ("being-written", "d6543f96911742b08d97662f8b82c3bd"),
    ("not-watching", "84a534e23927494a95262eedb74c0176"),
    ("not-kept", "6f4c6e6cee04464b9fe00feae83db028"),
    ("kept-again", "c85de204ecb2499e830884fe9b59b288"),
    ("reloading", "683df558c271405e8e88dabc871f6843"),
    ("reloaded", "7961c29de0f84039bd1de7e3b24563dc"),
    ("reload-failed", "28962171dc73442dabc9225c9363d749"),
    ("watched-changed", "8b8efdd2d5d04d16ba055047d34b4ea6"),
    ("not-watched", "362afc9ca21b4f188d48dd401033549d"),
    ("verdict", "050c9ed980bb4526960db396ec146d1f"),
    ("rolling-back", "3610da3000014d6d980533ad65751775"),
    ("rollback", "6474e08d4d3644d691f1e3316a6d5432"),
    ("held-off", "3cee25381fc945a8882744305fc1b89a"),
    ("last-good", "7825ee05ef19467cbc55f11158973ded"),
    ("to-confirm", "88c70221ef374793b955eb4abf3b35cb"),
    ("confirmed", "6ad27cbd6fa045a5803a25fb76d6e29b"),
    ("undone", "085350ec259e4a0d9faab6aa504779d1"),
    ("not-put-back", "cac3f3ca240745369182cfcf5b2e7108"),
    ("hook-failed", "6083f17da33640e1bba2215738e6cb39"),
];

/// The number of a kind of event.
pub(super) fn id(kind: &str) -> Option<&'static str> {
    IDS.iter().find(|(known, _)| *known == kind).map(|(_, id)| *id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const ROOT: &str = env!("CARGO_MANIFEST_DIR");

    #[test]
    fn each_kind_has_a_number_and_an_explanation() {
        let notes = std::fs::read_to_string(format!("{ROOT}/src/core/note.rs")).unwrap();
        let kinds = notes.split("fn kind").nth(1).unwrap();
        let kinds = kinds.lines().skip(1).take_while(|line| !line.starts_with('}'));
        let kinds = kinds.filter(|line| line.contains("=>"));
        let kinds: BTreeSet<&str> = kinds.filter_map(|line| line.split('"').nth(1)).collect();
        assert!(kinds.contains("still-there"), "{kinds:?}");
        for kind in kinds {
            assert!(id(kind).is_some(), "{kind} has no number");
        }
        // What the driver itself remarks.
        for file in std::fs::read_dir(format!("{ROOT}/src/driver")).unwrap() {
            let source = std::fs::read_to_string(file.unwrap().path()).unwrap();
            for call in source.split("self.remark(").skip(1) {
                let kind = call.split('"').nth(1).unwrap();
                assert!(id(kind).is_some(), "{kind} has no number");
            }
        }
        let catalog = std::fs::read_to_string(format!("{ROOT}/systemd/provost.catalog")).unwrap();
        let explained: BTreeSet<&str> =
            catalog.lines().filter_map(|line| line.strip_prefix("-- ")).collect();
        let numbered: BTreeSet<&str> = IDS.iter().map(|(_, id)| *id).collect();
        assert_eq!(numbered.len(), IDS.len());
        assert_eq!(explained, numbered);
    }
}
