# LocalStack of docker-compose.yml's profile `aws`, or any other emulator at this address.
endpoint      = "http://localhost:4566"
bucket_suffix = "local"
