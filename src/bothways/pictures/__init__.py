"""Pictures, always drawn from the object that really ran: visibilities and corrupted examples."""
