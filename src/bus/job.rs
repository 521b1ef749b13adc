//! `org.provost.Provost1.Job`: a job that has not ended. Its end is told by the manager's signal
//! `JobRemoved`, and then the object is gone.

use super::{job_number, paths, values};
use crate::driver::handle::JobView;
use zbus::{OwnedObjectPath, interface};

/// The object of one job. All of a job but its end is fixed when it begins.
pub struct JobObject(pub JobView);

/// A job that was asked for and has not ended.
#[interface(name = "org.provost.Provost1.Job", introspection_docs = false)]
impl JobObject {
    #[zbus(property(emits_changed_signal = "const"))]
    async fn id(&self) -> u32 {
        job_number(self.0.id)
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn kind(&self) -> &'static str {
        self.0.kind.as_str()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn instance(&self) -> String {
        self.0.instance.as_ref().map(ToString::to_string).unwrap_or_default()
    }

    #[zbus(property(emits_changed_signal = "const"))]
    async fn process(&self) -> OwnedObjectPath {
        self.0.instance.as_ref().map_or_else(paths::none, paths::process)
    }

    #[zbus(property(emits_changed_signal = "const"), name = "CreatedUSec")]
    async fn created_usec(&self) -> u64 {
        values::real(self.0.created)
    }
}
