"""Tables and timestamps from files as loggers, historians and spreadsheets write them."""
