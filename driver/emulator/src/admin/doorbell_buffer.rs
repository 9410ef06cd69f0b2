//! Doorbell Buffer Config (Base 5.8).

use nvio_spec::{Status, status};

use crate::controller::shadow_doorbells::ShadowDoorbells;
use crate::controller::state::Controller;
use crate::host::access::Access;
use crate::host::request::Request;

impl Controller {
    /// Executes Doorbell Buffer Config (Base 5.8). I/O queues that exist continue with the values
    /// in the host's page; the admin queue keeps its doorbells.
    pub(crate) fn doorbell_buffer_config(&mut self, request: Request<'_>) -> Result<u32, Status> {
        let Request { sqe, memory, page_shift, .. } = request;
        let page = 1 << page_shift;
        let (shadow, event) = (sqe.prp1.get(), sqe.prp2.get());
        let good = (shadow | event).is_multiple_of(page)
            && shadow != event
            && memory.find(shadow, page, Access::READ).is_some()
            && memory.find(event, page, Access::WRITE).is_some();
        if !good {
            return Err(status::INVALID_FIELD);
        }
        let stride = self.registers.cap().doorbell_stride();
        self.shadow = Some(ShadowDoorbells::new(shadow, event, stride));
        Ok(0)
    }
}
