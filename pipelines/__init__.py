"""When and how things run: definitions, resources, jobs, schedules and sensors."""
