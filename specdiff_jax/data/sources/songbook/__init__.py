"""The songbook: public-domain scores rendered to sound."""
